"""Whether shards that have their receipts lie on the disk as they were written.

The length of every shard's file is compared with its receipt when a run begins and when it closes.
Shards are also read back and hashed once after they were written, by then or by the pyramid that is
made of them; and once more after the machine was started anew, if they were written shortly before,
because what is read back soon after it was written comes from memory.
"""

import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from typing import Any

import psutil

from tierscale.pipeline.errors import Damaged, Interrupted
from tierscale.pipeline.output.levels import Key, StoreLayout
from tierscale.pipeline.output.receipt import Receipt
from tierscale.pipeline.output.receipts import Folder, ReceiptSummary
from tierscale.pipeline.output.stored_files import (
    StoredFile,
    difference,
    has_other_length,
    remove_leftovers,
    stored_files,
)
from tierscale.pipeline.plan.plan import Plan
from tierscale.pipeline.run.job import Controls
from tierscale.pipeline.run.workers.bounded import bounded_map
from tierscale.pipeline.run.workers.pool import Pool
from tierscale.pipeline.run.workers.shard_tasks import VerifyShard
from tierscale.pipeline.storage.atomic import write_json
from tierscale.pipeline.storage.object_path import ObjectPath
from tierscale.pipeline.storage.paths import place

# What was read back last, beside the output.
CHECKED = "checked.json"
# Linux writes what lies in memory to the disk within half a minute, unless it is told to before.
# What is older when it is read back, or when the power fails, is on the disk.
LAST_SECONDS = 60.0


def machine_started() -> float:
    """When this machine was started, seconds since the epoch; -inf: that cannot be found out.

    On Linux it is the line btime of /proc/stat, which in a container is that of the host, whose
    memory it is. psutil knows where other systems keep it.
    """
    try:
        return psutil.boot_time()
    except (OSError, RuntimeError):  # no /proc, or none that tells
        return -float("inf")


def trusted_until(
    files: Iterable[StoredFile], checked: Mapping[str, Any] | None, started: float
) -> float:
    """Up to which time of writing shards need not be read back, seconds since the epoch.

    checked: what the last check wrote, or None. started: as of machine_started().
    """
    if checked is not None:
        until = float(checked["until"])
        return until if checked["at"] >= started else until - LAST_SECONDS
    before = [file.modified for file in files if file.modified < started]
    return max(before, default=-float("inf")) - LAST_SECONDS


class Recheck:
    """The looks at the shards of one output. All reading is done by the pool.

    Shards in object stores are compared by length only: stores keep what they have acknowledged.
    """

    def __init__(self, folder: Folder, plan: Plan, pool: Pool, controls: Controls) -> None:
        self.folder, self.plan, self.pool, self.controls = folder, plan, pool, controls
        self._on_disk = not isinstance(place(folder.output), ObjectPath)
        self._unread: set[Key] = set()

    def sound(self) -> tuple[ReceiptSummary, int]:
        """The receipts of shards that are as they were written, and how many others there were.

        The others' receipts are removed. Interrupted: asked to stop.
        """
        files = stored_files(self.folder.output)
        summary, lost = ReceiptSummary(self.plan.grid.tiles), list[Key]()
        until, newest = self._trusted_until(files), _newest(files)
        total = sum(file.modified > until for file in files.values()) if self._on_disk else 0

        def doubtful() -> Iterator[Receipt]:
            for receipt in self.folder.receipts(self.plan.digest):
                file = files.get(receipt.key)
                if difference(self.folder.output, receipt, files) is not None:
                    lost.append(receipt.key)
                elif self._on_disk and (file is None or file.modified > until):
                    yield receipt
                else:
                    summary.add(receipt)

        for done, (receipt, problem) in enumerate(
            self._read_back(doubtful(), self.controls.stop), start=1
        ):
            self.controls.progress("check", min(done, total), total)
            if problem is None:
                summary.add(receipt)
            else:
                lost.append(receipt.key)
        self.folder.remove(lost)
        if self.controls.stop.is_set():
            raise Interrupted
        if total:
            self._record(newest)
        return summary, len(lost)

    def written(self, key: Key) -> None:
        """Take note that a shard was written. What a smaller level is made of is read for it."""
        level, y, x = key
        self._unread.add(key)
        if level:
            below = ((level - 1, 2 * y + dy, 2 * x + dx) for dy in (0, 1) for dx in (0, 1))
            self._unread.difference_update(below)

    def close(self, receipts: ReceiptSummary) -> None:
        """Damaged: a shard has no receipt on the disk, or is not there as it was written."""
        output, on_disk = self.folder.output, self.folder.receipt_keys()
        keys = list(StoreLayout.of(self.plan).keys)
        if missing := [key for key in keys if key not in receipts or key not in on_disk]:
            raise Damaged(
                f"{output} lacks {len(missing)} of {len(keys)} receipts, such as {min(missing)};"
                " run the same command again"
            )
        files = stored_files(output)
        for key in keys:
            if has_other_length(files.get(key), receipts.bytes_of(key)):
                # Looked at again: a worker that was late may have written the shard once more, with
                # other bytes where its memory ran out.
                again = self.folder.receipt(self.plan.digest, key)
                if text := difference(output, again, stored_files(output)):
                    raise Damaged(text)
        if self._on_disk:
            remove_leftovers(output)
            unread = (self.folder.receipt(self.plan.digest, key) for key in sorted(self._unread))
            for _, problem in self._read_back(unread):
                if problem is not None:
                    raise Damaged(problem)
            self._record(_newest(files))

    def _trusted_until(self, files: Mapping[Key, StoredFile]) -> float:
        checked = self.folder.read_json(CHECKED)
        known = isinstance(checked, dict) and checked.get("plan") == self.plan.digest
        return trusted_until(files.values(), checked if known else None, machine_started())

    def _record(self, until: float) -> None:
        """Take note that all shards written until then were read back, if any were written."""
        if until > 0:
            content = {"plan": self.plan.digest, "at": time.time(), "until": until}
            # Where it is lost, shards are read back once more.
            write_json(self.folder.path / CHECKED, content, durable=False)

    def _read_back(
        self, receipts: Iterable[Receipt], stop: threading.Event | None = None
    ) -> Iterator[tuple[Receipt, str | None]]:
        """Each receipt with what is wrong with its shard, a bounded number under way."""

        def start(receipt: Receipt) -> Future[str | None]:
            return self.pool.submit(VerifyShard(self.folder.output, receipt))

        width = 2 * self.pool.width
        for receipt, future in bounded_map(receipts, start, width, stop):
            yield receipt, future.result()


def _newest(files: Mapping[Key, StoredFile]) -> float:
    return max((file.modified for file in files.values()), default=0.0)
