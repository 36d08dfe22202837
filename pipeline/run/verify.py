"""Inspect an output: is every shard there and as its receipt says, how far is a run."""

import socket
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import Any

from tierscale.pipeline.formats.arrays.ingest import discard
from tierscale.pipeline.output.receipts import Folder, Receipt
from tierscale.pipeline.plan.plan import Plan
from tierscale.pipeline.run.inspect import reopen
from tierscale.pipeline.run.planning import COPY
from tierscale.pipeline.run.run import shard_keys
from tierscale.pipeline.run.workers.bounded import bounded_map
from tierscale.pipeline.run.workers.pool import Handle, Pool
from tierscale.pipeline.run.workers.prescan_tasks import IngestSource
from tierscale.pipeline.run.workers.shard_tasks import FinishShard, HalveShards, VerifyShard
from tierscale.pipeline.storage.lease import Lease, living
from tierscale.pipeline.wording import counted

OTHER = "this version has another bytes_version than the one that wrote them (see their receipts)"


def is_finished(folder: Folder, plan: Plan) -> bool:
    """Whether every shard has its receipt."""
    return set(shard_keys(plan)) <= {receipt.key for receipt in folder.receipts(plan.digest)}


def verify_output(output: str, pool: Pool, heal: bool) -> dict[str, Any]:
    """Compare every shard with its receipt; with `heal`, make those that differ again.

    {"output", "shards", "problems": [sentence], "healed": number, "notes": [sentence]}.
    """
    folder = Folder(output)
    plan = folder.plan()
    receipts = {receipt.key: receipt for receipt in folder.receipts(plan.digest)}
    keys = shard_keys(plan)
    there = [receipts[key] for key in keys if key in receipts]
    problems = [
        f"{output} level {level} shard {y}.{x} has no receipt; run the upscale command again"
        for level, y, x in keys
        if (level, y, x) not in receipts
    ]
    wrong = [(receipt, text) for receipt, text in _compare(output, pool, there) if text]
    problems.extend(text for _, text in wrong)
    again: list[Receipt] = []
    if heal and wrong:
        with Lease(folder.path):
            again = heal_shards(output, pool, [receipt for receipt, _ in wrong])
    same = [one.pixels_sha256 == receipts[one.key].pixels_sha256 for one in again]
    # By another bytes_version other pixels are right, and say so.
    other = [
        not equal and one.bytes_version != receipts[one.key].bytes_version
        for equal, one in zip(same, again, strict=True)
    ]
    notes = [f"{sum(other)} shards were made again with other bytes: {OTHER}"] if any(other) else []
    healed = sum(same) + sum(other)
    return {
        "output": output,
        "shards": len(keys),
        "problems": problems,
        "healed": healed,
        "notes": notes,
    }


def heal_shards(output: str, pool: Pool, damaged: Sequence[Receipt]) -> list[Receipt]:
    """Make damaged shards again, full resolution first, then the levels above; new receipts."""
    folder = Folder(output)
    plan = folder.plan()
    copy, source = folder.path / COPY, reopen(plan)
    kept, pixels = copy.exists(), plan.source.in_place
    if source.needs_ingest:
        pool.submit(IngestSource(source.uri, source.selection, str(copy), None)).result()
        pixels = plan.source.copied_to(str(copy))
    handle: Handle[Plan] = pool.put(plan)
    healed: list[Receipt] = []
    for receipt in sorted(damaged, key=lambda receipt: receipt.key):
        shard = (receipt.y, receipt.x)
        if receipt.level == 0:
            healed.append(pool.submit(FinishShard(handle, pixels, output, shard)).result())
        else:
            task = HalveShards(handle, output, receipt.level, shard)
            healed.append(pool.submit(task).result())
    if not kept:
        discard(copy)
    return healed


def _compare(
    output: str, pool: Pool, receipts: Sequence[Receipt]
) -> Iterator[tuple[Receipt, str | None]]:
    """Each receipt with what is wrong with its shard, a bounded number under way."""

    def start(receipt: Receipt) -> Future[str | None]:
        return pool.submit(VerifyShard(output, receipt))

    for receipt, future in bounded_map(receipts, start, 2 * pool.width):
        yield receipt, future.result()


def status_of(output: str, at: float) -> dict[str, Any]:
    """Shards done, the process at work on it, and the seconds left at the pace so far.

    at: seconds since the epoch.
    """
    folder = Folder(output)
    plan = folder.plan()
    total = len(shard_keys(plan))
    done = sum(1 for _ in folder.receipts(plan.digest))
    lease = folder.read_json("lease.json")
    lease = lease if living(lease, at) else None
    left = None
    if lease and total:
        files = (folder.path / "receipts").glob("*/*.json")
        fresh = sum(1 for file in files if file.stat().st_mtime >= lease["started"])
        if fresh:
            left = (at - lease["started"]) / fresh * (total - done)
    state = "done" if total and done >= total else "running" if lease else "interrupted"
    text = f"{output}: {done} of {counted(total, 'shard')}, {state}"
    text += f" by process {lease['pid']} on {lease['host']}" if lease else ""
    text += f"; about {left:.0f} s left" if left is not None else ""
    text += "; to resume, run the upscale command again" if state == "interrupted" else ""
    return {
        "status": state,
        "output": output,
        "plan": plan.digest,
        "shards": {"total": total, "done": done},
        "lease": lease,
        "here": bool(lease and lease["host"] == socket.gethostname()),
        "seconds_left": left,
        "text": text,
        "error": None,
    }
