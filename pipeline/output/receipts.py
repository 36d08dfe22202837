"""The folder beside an output: plan, receipts and tables.

Files here are written under a temporary name and renamed, so a reader sees a whole file or none.
"""

import contextlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from tierscale.pipeline.errors import Damaged, Refused
from tierscale.pipeline.output.levels import Key
from tierscale.pipeline.output.receipt import Receipt, parse, to_json
from tierscale.pipeline.plan.plan import Plan
from tierscale.pipeline.plan.stored import plan_from_json, plan_to_json
from tierscale.pipeline.storage.atomic import write_bytes, write_json
from tierscale.pipeline.storage.failures import storage_failure
from tierscale.pipeline.storage.object_path import ObjectPath
from tierscale.pipeline.storage.paths import Place, place, sync_folder
from tierscale.pipeline.storage.sidecar import PLAN_NAME, sidecar

# What a run writes when it is at its end.
SUMMARY = "summary.json"
# Objects that are read at a time.
CONCURRENT_READS = 16


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
        write_bytes(self._receipt_file(receipt.key), to_json(receipt).encode())

    def receipts(self, plan: str, level: int | None = None) -> Iterator[Receipt]:
        """All receipts of the plan with digest `plan`, or those of one level, read one by one.

        What cannot be read counts as missing, and its shard is computed again.
        """
        pattern = f"{'*' if level is None else level}/*.json"
        for content in _contents(sorted((self.path / "receipts").glob(pattern))):
            if (receipt := parse(content, plan)) is not None:
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
            tiles = (*receipt.tile_costs, *receipt.tile_fidelity)
            if all(row < rows and column < columns for row, column, *_ in tiles):
                summary.add(receipt)
        return summary

    def receipt(self, plan: str, key: Key) -> Receipt:
        """The receipt of one shard. Damaged: there is none that can be used."""
        with contextlib.suppress(FileNotFoundError):
            if (receipt := parse(self._receipt_file(key).read_bytes(), plan)) is not None:
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
            if isinstance(file, Path) and file.parent.is_dir():  # there may be no receipt yet
                sync_folder(file.parent)

    def _receipt_file(self, key: Key) -> Place:
        return self.path / "receipts" / str(key[0]) / f"{key[1]}.{key[2]}.json"

    def read_json(self, name: str) -> Any:
        """Content of a JSON file here; None: there is none, or it cannot be parsed."""
        try:
            return json.loads((self.path / name).read_text())
        except (FileNotFoundError, ValueError):
            return None


def _contents(files: list[Place]) -> Iterator[bytes]:
    """Contents of files, in order; objects are read many at a time, each being a request."""
    if files and isinstance(files[0], ObjectPath):
        with ThreadPoolExecutor(CONCURRENT_READS, thread_name_prefix="receipts") as readers:
            yield from readers.map(lambda file: file.read_bytes(), files)
    else:
        yield from (file.read_bytes() for file in files)
