"""The record that a shard is written, and its document."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

import numpy as np

from tierscale.pipeline.output.levels import Key
from tierscale.pipeline.plan.plan import bytes_version

# Of the receipts that are written. Version 0.1 wrote no number, and the bytes of the pixels where
# those of the file stand now.
FORMAT = 2
# Of shards whose receipts do not hold it: version 0.1 wrote none.
FIRST_BYTES_VERSION = 1
# Results that differ by less than so many dB in fidelity may be the same but for rounding.
AS_FAITHFUL = 0.5


def pixels_sha256(pixels: np.ndarray) -> str:
    """Checksum of pixels (c, H, W): C order, little endian; hex."""
    little = np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("<"))
    return hashlib.sha256(little.data).hexdigest()


@dataclass(frozen=True, slots=True)
class Receipt:
    """The record that one shard of one plan is written.

    plan: digest. level, y, x: which shard. shape: (c, H, W) of its pixels, clipped to the image.
    pixels_sha256: as of pixels_sha256(), hex. bytes: of its file; None: not known, as version 0.1
    did not record them. tiles: number of tiles by tier. cost: multiply-adds executed. seconds: of
    computing and writing, by stage. batch: smallest batch used, 0 where not even one window fitted
    in memory and it was cut. retreats: tiers whose batches were smaller than planned because memory
    ran out; their values may differ from an undisturbed run's by 1 of 255. tile_costs: (row,
    column, multiply-adds, milliseconds) of each tile. settings: by tier, those of the plan that its
    tiles were made with, such as the width that NAME@auto stood for. bytes_version: of the
    tierscale that wrote the shard. fidelity: of the worst tile, dB, shrunk and compared with the
    source; None where none was compared. tile_fidelity: (row, column, dB) of the tiles that were.
    workers: who made it, and processors: on what. precision: of the networks, as in the plan.
    """

    plan: str
    level: int
    y: int
    x: int
    shape: tuple[int, int, int]
    pixels_sha256: str
    bytes: int | None
    tiles: Mapping[str, int]
    cost: float
    seconds: Mapping[str, float]
    device: str
    batch: int
    retreats: tuple[str, ...] = ()
    tile_costs: tuple[tuple[int, int, float, float], ...] = ()
    settings: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    bytes_version: int = field(default_factory=bytes_version)
    fidelity: float | None = None
    tile_fidelity: tuple[tuple[int, int, float], ...] = ()
    workers: tuple[str, ...] = ()
    processors: tuple[str, ...] = ()
    precision: str = "fp32"

    def agrees(self, other: "Receipt") -> bool:
        """Whether two workers made the same of a shard.

        Where memory ran out for one of them, or their processors round differently, values may
        differ by 1 of 255: it is then enough that all tiles are as faithful.
        """
        if self.pixels_sha256 == other.pixels_sha256:
            return True
        if (self.batch, self.processors) == (other.batch, other.processors):
            return False
        one, two = (
            {(row, column): fidelity for row, column, fidelity in receipt.tile_fidelity}
            for receipt in (self, other)
        )
        return one.keys() == two.keys() and all(
            abs(one[tile] - two[tile]) < AS_FAITHFUL for tile in one
        )

    @property
    def key(self) -> Key:
        """Level, row and column of the shard."""
        return self.level, self.y, self.x


NAMES = tuple(one.name for one in fields(Receipt))
# Fields that JSON gives as lists, and as lists of lists.
LISTS, TABLES = ("shape", "retreats", "workers", "processors"), ("tile_costs", "tile_fidelity")


def to_json(receipt: Receipt) -> str:
    """The document of a receipt."""
    return json.dumps({"format": FORMAT, **{name: getattr(receipt, name) for name in NAMES}})


def parse(content: bytes, plan: str) -> Receipt | None:
    """A receipt of the plan with digest `plan`; None: it is of another one, torn or damaged.

    Names that this version does not know are passed over, so that it goes on with what a later one
    began.
    """
    try:
        document = json.loads(content)
        plain = {name: document[name] for name in NAMES if name in document}
        if "format" not in document:
            plain["bytes"] = None
        plain.setdefault("bytes_version", FIRST_BYTES_VERSION)
        plain |= {name: tuple(plain[name]) for name in LISTS if name in plain}
        plain |= {name: tuple(map(tuple, plain[name])) for name in TABLES if name in plain}
        receipt = Receipt(**plain)
        return receipt if receipt.plan == plan and _sound(receipt) else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _sound(receipt: Receipt) -> bool:
    """Whether the values are of the types that others rely on; a damaged file may hold any."""
    whole = (receipt.level, receipt.y, receipt.x, *receipt.shape, *receipt.tiles.values())
    tables = all(
        len(entry) == length
        and isinstance(entry[0], int)
        and isinstance(entry[1], int)
        and min(entry) >= 0
        for table, length in ((receipt.tile_costs, 4), (receipt.tile_fidelity, 3))
        for entry in table
    )
    known = receipt.fidelity is None or isinstance(receipt.fidelity, float)
    return tables and known and all(isinstance(one, int) for one in whole) and receipt.cost >= 0
