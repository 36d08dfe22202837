"""The folder beside an output: plan, receipts and tables.

Files here are written under a temporary name and renamed, so a reader sees a whole file or none.
"""

import contextlib
import hashlib
import json
import math
import re
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
from tierscale.pipeline.storage.failures import storage_failure
from tierscale.pipeline.storage.object_path import ObjectPath
from tierscale.pipeline.storage.paths import Place, place, sync_folder
from tierscale.pipeline.storage.sidecar import PLAN_NAME, sidecar

# What a run writes when it is at its end.
SUMMARY = "summary.json"
# Of the receipts that are written. Version 0.1 wrote no number, and the bytes of the pixels where
# those of the file stand now.
FORMAT = 2
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
    pixels_sha256: as of pixels_sha256(), hex. bytes: of its file; None: not known, as version 0.1
    did not record them. tiles: number of tiles by tier. cost: multiply-adds executed. seconds: of
    computing and writing, by stage. batch: smallest batch used, 0 where not even one window fitted
    in memory and it was cut. retreats: tiers whose batches were smaller than planned because memory
    ran out; their values may differ from an undisturbed run's by 1 of 255. tile_costs: (row,
    column, multiply-adds, milliseconds) of each tile. settings: by tier, those of the plan that its
    tiles were made with, such as the width that NAME@auto stood for. bytes_version: of the
    tierscale that wrote the shard.
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

    @property
    def key(self) -> Key:
        """Level, row and column of the shard."""
        return self.level, self.y, self.x


NAMES = tuple(one.name for one in fields(Receipt))


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
        """Whether a plan is stored here. Refused, Damaged: the store does not say."""
        path = self.path / PLAN_NAME
        try:
            return path.exists()
        except OSError as error:
            raise storage_failure(str(path), error) from error

    def closed(self) -> bool:
        """Whether a run came to its end, when every shard had its receipt."""
        return (self.path / SUMMARY).exists()

    def write_plan(self, plan: Plan) -> None:
        """Store the plan."""
        write_json(self.path / PLAN_NAME, plan_to_json(plan))

    def plan(self) -> Plan:
        """The stored plan. Refused: there is none, or it was changed."""
        try:
            return plan_from_json(json.loads((self.path / PLAN_NAME).read_text()))
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
        for content in _contents(sorted((self.path / "receipts").glob(pattern))):
            if (receipt := _parse(content, plan)) is not None:
                yield receipt

    def receipt_keys(self) -> set[Key]:
        """The shards that have a file in the place of their receipt; its content is not read.

        Files with other names, such as copies that a program for synchronising made, are no
        receipts.
        """
        names = (
            re.fullmatch(r"(\d+)/(\d+)\.(\d+)\.json", f"{file.parent.name}/{file.name}")
            for file in (self.path / "receipts").glob("*/*.json")
        )
        return {(int(name[1]), int(name[2]), int(name[3])) for name in names if name}

    def summary(self, plan: Plan) -> ReceiptSummary:
        """What all receipts of a plan add up to, read once."""
        summary, (rows, columns) = ReceiptSummary(plan.grid.tiles), plan.grid.tiles
        for receipt in self.receipts(plan.digest):
            if all(row < rows and column < columns for row, column, *_ in receipt.tile_costs):
                summary.add(receipt)
        return summary

    def receipt(self, plan: str, key: Key) -> Receipt:
        """The receipt of one shard. Damaged: there is none that can be used."""
        with contextlib.suppress(FileNotFoundError):
            if (receipt := _parse(self._receipt_file(key).read_bytes(), plan)) is not None:
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


def _parse(content: bytes, plan: str) -> Receipt | None:
    """A receipt of the plan with digest `plan`; None: it is of another one, torn or damaged.

    Names that this version does not know are passed over, so that it goes on with what a later one
    began.
    """
    try:
        document = json.loads(content)
        plain = {name: document[name] for name in NAMES if name in document}
        if "format" not in document:
            plain["bytes"] = None
        plain |= {"shape": tuple(plain["shape"]), "retreats": tuple(plain.get("retreats", ()))}
        plain.setdefault("bytes_version", FIRST_BYTES_VERSION)
        receipt = Receipt(
            **{**plain, "tile_costs": tuple(tuple(entry) for entry in plain["tile_costs"])}
        )
        return receipt if receipt.plan == plan and _sound(receipt) else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _sound(receipt: Receipt) -> bool:
    """Whether the values are of the types that others rely on; a damaged file may hold any."""
    whole = (receipt.level, receipt.y, receipt.x, *receipt.shape, *receipt.tiles.values())
    tiles = all(
        len(entry) == 4
        and isinstance(entry[0], int)
        and isinstance(entry[1], int)
        and min(entry) >= 0
        for entry in receipt.tile_costs
    )
    return tiles and all(isinstance(one, int) for one in whole) and receipt.cost >= 0


def _contents(files: list[Place]) -> Iterator[bytes]:
    """Contents of files, in order; objects are read many at a time, each being a request."""
    if files and isinstance(files[0], ObjectPath):
        with ThreadPoolExecutor(CONCURRENT_READS, thread_name_prefix="receipts") as readers:
            yield from readers.map(lambda file: file.read_bytes(), files)
    else:
        yield from (file.read_bytes() for file in files)
