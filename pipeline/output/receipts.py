"""The folder beside an output: plan, receipts and tables.

Files here are written under a temporary name and renamed, so a reader sees a whole file or none.
"""

import contextlib
import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tierscale.pipeline.errors import Damaged, Refused
from tierscale.pipeline.output.levels import Key
from tierscale.pipeline.plan.plan import Plan, bytes_version
from tierscale.pipeline.plan.stored import plan_from_json, plan_to_json
from tierscale.pipeline.storage.atomic import write_bytes, write_json
from tierscale.pipeline.storage.object_path import ObjectPath
from tierscale.pipeline.storage.paths import Place, place
from tierscale.pipeline.storage.sidecar import sidecar

# Of shards whose receipts do not hold it: version 0.1 wrote none.
FIRST_BYTES_VERSION = 1
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
    pixels_sha256: as of pixels_sha256(), hex. bytes: of the pixels. tiles: number of tiles by tier.
    cost: multiply-adds executed. seconds: of computing and writing, by stage. batch: smallest batch
    used, 0 where not even one window fitted in memory and it was cut. retreats: tiers whose batches
    were smaller than planned because memory ran out; their values may differ from an undisturbed
    run's by 1 of 255. tile_costs: (row, column, multiply-adds, milliseconds) of each tile.
    bytes_version: of the tierscale that wrote the shard.
    """

    plan: str
    level: int
    y: int
    x: int
    shape: tuple[int, int, int]
    pixels_sha256: str
    bytes: int
    tiles: Mapping[str, int]
    cost: float
    seconds: Mapping[str, float]
    device: str
    batch: int
    retreats: tuple[str, ...] = ()
    tile_costs: tuple[tuple[int, int, float, float], ...] = ()
    bytes_version: int = field(default_factory=bytes_version)

    @property
    def key(self) -> Key:
        """Level, row and column of the shard."""
        return self.level, self.y, self.x


class ReceiptSummary:
    """What the receipts of one plan add up to; its size is bounded by tiles and shards.

    A run reads the receipts that are on disk once, with Folder.summary(), and then adds each new
    receipt as a worker returns it. A shard counts once: a receipt of the same shard replaces the
    earlier one.

    tile_costs: multiply-adds and milliseconds of every tile, (2, rows, columns). tiles: number of
    tiles by tier. retreats: tiers whose batches were smaller than planned because memory ran out.
    """

    def __init__(self, tiles: tuple[int, int]) -> None:
        self.tile_costs = np.zeros((2, *tiles))
        self.retreats: set[str] = set()
        self.tiles: Counter[str] = Counter()
        self._costs: dict[Key, float] = {}
        self._tiles: dict[Key, Mapping[str, int]] = {}

    def add(self, receipt: Receipt) -> None:
        """Count a receipt."""
        self.retreats.update(receipt.retreats)
        self._costs[receipt.key] = receipt.cost
        if receipt.tiles:
            self.tiles.subtract(self._tiles.get(receipt.key, {}))
            self.tiles.update(receipt.tiles)
            self._tiles[receipt.key] = receipt.tiles
        for row, column, macs, milliseconds in receipt.tile_costs:
            self.tile_costs[:, row, column] = macs, milliseconds

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
        plain = {name: getattr(receipt, name) for name in Receipt.__dataclass_fields__}
        write_bytes(self._receipt_file(receipt.key), json.dumps(plain).encode())

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

    def _receipt_file(self, key: Key) -> Place:
        return self.path / "receipts" / str(key[0]) / f"{key[1]}.{key[2]}.json"

    def read_json(self, name: str) -> Any:
        """Content of a JSON file here; None: there is none, or it cannot be parsed."""
        try:
            return json.loads((self.path / name).read_text())
        except (FileNotFoundError, ValueError):
            return None


def _parse(text: str, plan: str) -> Receipt | None:
    """A receipt of the plan with digest `plan`; None: it is of another one, or torn."""
    try:
        plain = json.loads(text)
        plain |= {"shape": tuple(plain["shape"]), "retreats": tuple(plain.get("retreats", ()))}
        plain.setdefault("bytes_version", FIRST_BYTES_VERSION)
        receipt = Receipt(
            **{**plain, "tile_costs": tuple(tuple(entry) for entry in plain["tile_costs"])}
        )
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
