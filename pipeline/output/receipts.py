"""The folder beside an output: plan, receipts and tables.

Files here are written under a temporary name and renamed, so a reader sees a whole file or none.
"""

import contextlib
import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from tierscale.pipeline.errors import Damaged, Refused
from tierscale.pipeline.output.levels import Key
from tierscale.pipeline.plan.plan import Plan, bytes_version
from tierscale.pipeline.plan.stored import plan_from_json, plan_to_json
from tierscale.pipeline.storage.atomic import write_bytes, write_json
from tierscale.pipeline.storage.object_path import ObjectPath
from tierscale.pipeline.storage.paths import Place, place, sync_folder
from tierscale.pipeline.storage.sidecar import sidecar

# Of the receipts that are written. Version 0.1 wrote no number, and the bytes of the pixels where
# those of the file stand now.
FORMAT = 2
# Of shards whose receipts do not hold it: version 0.1 wrote none.
FIRST_BYTES_VERSION = 1
# Results that differ by less than so many dB in fidelity may be the same but for rounding.
AS_FAITHFUL = 0.5
# Objects that are read at a time.
CONCURRENT_READS = 16


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
    column, multiply-adds, milliseconds) of each tile. bytes_version: of the tierscale that wrote
    the shard. fidelity: of the worst tile, dB, shrunk and compared with the source; None where none
    was compared. tile_fidelity: (row, column, dB) of the tiles that were. workers: who made it.
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
    bytes_version: int = field(default_factory=bytes_version)
    fidelity: float | None = None
    tile_fidelity: tuple[tuple[int, int, float], ...] = ()
    workers: tuple[str, ...] = ()

    def agrees(self, other: "Receipt") -> bool:
        """Whether two workers made the same of a shard.

        Where memory ran out for one of them, values may differ by 1 of 255: it is then enough that
        both are as faithful.
        """
        if self.pixels_sha256 == other.pixels_sha256:
            return True
        if self.fidelity is None or other.fidelity is None or self.batch == other.batch:
            return False
        return abs(self.fidelity - other.fidelity) < AS_FAITHFUL

    @property
    def key(self) -> Key:
        """Level, row and column of the shard."""
        return self.level, self.y, self.x


NAMES = tuple(one.name for one in fields(Receipt))
# Fields that JSON gives as lists, and as lists of lists.
LISTS, TABLES = ("shape", "retreats", "workers"), ("tile_costs", "tile_fidelity")


class ReceiptSummary:
    """What the receipts of one plan add up to; its size is bounded by tiles and shards.

    A run reads the receipts that are on disk once, with Folder.summary(), and then adds each new
    receipt as a worker returns it. A shard counts once: a receipt of the same shard replaces the
    earlier one.

    tile_costs: multiply-adds and milliseconds of every tile, (2, rows, columns). fidelity: of every
    tile, dB (rows, columns); NaN: not known. tiles: number of tiles by tier. retreats: tiers whose
    batches were smaller than planned because memory ran out.
    """

    def __init__(self, tiles: tuple[int, int]) -> None:
        self.tile_costs = np.zeros((2, *tiles))
        self.fidelity = np.full(tiles, np.nan, np.float32)
        self.retreats: set[str] = set()
        self.tiles: Counter[str] = Counter()
        self._costs: dict[Key, float] = {}
        self._tiles: dict[Key, Mapping[str, int]] = {}
        self._bytes: dict[Key, int | None] = {}

    def add(self, receipt: Receipt) -> None:
        """Count a receipt."""
        self.retreats.update(receipt.retreats)
        self._costs[receipt.key] = receipt.cost
        self._bytes[receipt.key] = receipt.bytes
        if receipt.tiles:
            self.tiles.subtract(self._tiles.get(receipt.key, {}))
            self.tiles.update(receipt.tiles)
            self._tiles[receipt.key] = receipt.tiles
        for row, column, macs, milliseconds in receipt.tile_costs:
            self.tile_costs[:, row, column] = macs, milliseconds
        for row, column, fidelity in receipt.tile_fidelity:
            self.fidelity[row, column] = fidelity

    def __contains__(self, key: Key) -> bool:
        """Whether a shard has its receipt."""
        return key in self._costs

    def __len__(self) -> int:
        """Number of shards that have their receipt."""
        return len(self._costs)

    @property
    def keys(self) -> set[Key]:
        """Shards that have their receipt."""
        return set(self._costs)

    def bytes_of(self, key: Key) -> int | None:
        """Bytes of a shard's file. KeyError: it has no receipt."""
        return self._bytes[key]

    @property
    def cost(self) -> float:
        """Multiply-adds executed; the same for receipts in any order."""
        return math.fsum(self._costs.values())


class Folder:
    """The folder beside the output at `path`: plan, receipts, lease, tables and pictures."""

    def __init__(self, path: str) -> None:
        self.output = path
        self.path = sidecar(path)

    def exists(self) -> bool:
        """Whether a plan is stored here."""
        return (self.path / "plan.json").exists()

    def write_plan(self, plan: Plan) -> None:
        """Store the plan."""
        write_json(self.path / "plan.json", plan_to_json(plan))

    def plan(self) -> Plan:
        """The stored plan. Refused: there is none, or it was changed."""
        try:
            return plan_from_json(json.loads((self.path / "plan.json").read_text()))
        except FileNotFoundError:
            what = (
                f"{self.output} has no plan in {self.path}, so it was not made by tierscale or was"
                " moved without that folder"
                if place(self.output).exists()
                else f"there is no {self.output}"
            )
            raise Refused(f"{what}; name an output of tierscale upscale") from None
        except (ValueError, KeyError, TypeError) as error:
            raise Refused(
                f"{self.path / 'plan.json'} cannot be used: {error}; give --overwrite to start"
                " again"
            ) from error

    def write(self, receipt: Receipt) -> None:
        """Store a receipt, after its shard: one that claims a missing shard would hide a hole."""
        write_bytes(self._receipt_file(receipt.key), _to_json(receipt).encode())

    def receipts(self, plan: str, level: int | None = None) -> Iterator[Receipt]:
        """All receipts of the plan with digest `plan`, or those of one level, read one by one.

        What cannot be read counts as missing, and its shard is computed again.
        """
        pattern = f"{'*' if level is None else level}/*.json"
        for text in _texts(sorted((self.path / "receipts").glob(pattern))):
            if (receipt := _parse(text, plan)) is not None:
                yield receipt

    def receipt_keys(self) -> set[Key]:
        """The shards that have a file in the place of their receipt; its content is not read."""
        keys = set()
        for file in (self.path / "receipts").glob("*/*.json"):
            y, x = file.name.removesuffix(".json").split(".")
            keys.add((int(file.parent.name), int(y), int(x)))
        return keys

    def summary(self, plan: Plan) -> ReceiptSummary:
        """What all receipts of a plan add up to, read once."""
        summary = ReceiptSummary(plan.grid.tiles)
        for receipt in self.receipts(plan.digest):
            summary.add(receipt)
        return summary

    def receipt(self, plan: str, key: Key) -> Receipt:
        """The receipt of one shard. Damaged: there is none that can be used."""
        with contextlib.suppress(FileNotFoundError):
            if (receipt := _parse(self._receipt_file(key).read_text(), plan)) is not None:
                return receipt
        raise Damaged(
            f"{self.output} level {key[0]} shard {key[1]}.{key[2]} has no receipt any more; run the"
            " upscale command again"
        )

    def remove(self, keys: Iterable[Key]) -> None:
        """Remove the receipts of some shards, which are then made again."""
        for key in keys:
            file = self._receipt_file(key)
            file.unlink(missing_ok=True)
            if isinstance(file, Path):
                sync_folder(file.parent)

    def _receipt_file(self, key: Key) -> Place:
        return self.path / "receipts" / str(key[0]) / f"{key[1]}.{key[2]}.json"

    def read_json(self, name: str) -> Any:
        """Content of a JSON file here; None: there is none, or it cannot be parsed."""
        try:
            return json.loads((self.path / name).read_text())
        except (FileNotFoundError, ValueError):
            return None


def _to_json(receipt: Receipt) -> str:
    """The document of a receipt."""
    return json.dumps({"format": FORMAT, **{name: getattr(receipt, name) for name in NAMES}})


def _parse(text: str, plan: str) -> Receipt | None:
    """A receipt of the plan with digest `plan`; None: it is of another one, or torn.

    Names that this version does not know are passed over, so that it goes on with what a later one
    began.
    """
    try:
        document = json.loads(text)
        plain = {name: document[name] for name in NAMES if name in document}
        if "format" not in document:
            plain["bytes"] = None
        plain.setdefault("bytes_version", FIRST_BYTES_VERSION)
        plain |= {name: tuple(plain[name]) for name in LISTS if name in plain}
        plain |= {name: tuple(map(tuple, plain[name])) for name in TABLES if name in plain}
        receipt = Receipt(**plain)
    except (ValueError, KeyError, TypeError):
        return None
    return receipt if receipt.plan == plan else None


def _texts(files: list[Place]) -> Iterator[str]:
    """Contents of files, in order; objects are read many at a time, each being a request."""
    if files and isinstance(files[0], ObjectPath):
        with ThreadPoolExecutor(CONCURRENT_READS, thread_name_prefix="receipts") as readers:
            yield from readers.map(lambda file: file.read_text(), files)
    else:
        yield from (file.read_text() for file in files)
