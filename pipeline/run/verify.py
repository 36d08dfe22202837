"""Look at an output: is every shard there and as its receipt says, how far is a run."""

import socket
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import replace
from typing import Any

from tierscale.pipeline.formats.arrays.ingest import discard
from tierscale.pipeline.output.receipts import Folder, Receipt
from tierscale.pipeline.plan.plan import Plan
from tierscale.pipeline.run.inspect import reopen
from tierscale.pipeline.run.pool import Pool
from tierscale.pipeline.run.run import shard_keys
from tierscale.pipeline.storage.lease import Lease, living


def finished(folder: Folder, plan: Plan) -> bool:
    """Whether every shard has its receipt."""
    return set(shard_keys(plan)) <= {receipt.key for receipt in folder.receipts(plan.digest)}


def verify_output(output: str, pool: Pool, heal: bool) -> dict[str, Any]:
    """Compare every shard with its receipt; with `heal`, do those that differ again."""
    folder = Folder(output)
    plan = folder.plan()
    receipts = {receipt.key: receipt for receipt in folder.receipts(plan.digest)}
    keys = shard_keys(plan)
    absent = [key for key in keys if key not in receipts]
    wrong = [
        (receipt, text)
        for receipt, text in _checked(
            output, pool, [receipts[key] for key in keys if key in receipts]
        )
        if text
    ]
    problems = [
        f"{output} level {level} shard {y}.{x} has no receipt; run the upscale command again"
        for level, y, x in absent
    ]
    problems.extend(text for _, text in wrong)
    healed = 0
    if heal and wrong:
        with Lease(folder.path):
            redone = mend(output, pool, [receipt for receipt, _ in wrong])
        healed = sum(
            1 for receipt in redone if receipt.pixels_sha256 == receipts[receipt.key].pixels_sha256
        )
    return {"output": output, "shards": len(keys), "problems": problems, "healed": healed}


def mend(output: str, pool: Pool, bad: list[Receipt]) -> list[Receipt]:
    """Do damaged shards again, full resolution first, then the levels above them; their new
    receipts.
    """
    folder = Folder(output)
    plan = folder.plan()
    copy = folder.path / "source.zarr"
    kept = copy.exists()
    found = reopen(plan)
    if found.needs_ingest:
        pool.submit("ingest", found.uri, found.selection, str(copy), None).result()
        plan = replace(plan, source={**plan.source, "uri": str(copy), "ingested": True})
    handle = pool.share(plan)
    healed = []
    for receipt in sorted(bad, key=lambda receipt: receipt.key):
        shard = (receipt.y, receipt.x)
        if receipt.level == 0:
            healed.append(pool.submit("finish", handle, output, shard).result())
        else:
            healed.append(pool.submit("pyramid", handle, output, receipt.level, shard).result())
    if not kept:
        discard(copy)
    return healed


def _checked(
    output: str, pool: Pool, receipts: list[Receipt]
) -> Iterator[tuple[Receipt, str | None]]:
    """Each receipt with what is wrong with its shard, a bounded number under way."""
    flying: dict[Future, Receipt] = {}
    queue = iter(receipts)
    while True:
        while len(flying) < 2 * pool.width and (receipt := next(queue, None)) is not None:
            flying[pool.submit("verify", output, receipt)] = receipt
        if not flying:
            return
        for future in wait(flying, return_when=FIRST_COMPLETED).done:
            yield flying.pop(future), future.result()


def status_of(output: str, at: float) -> dict[str, Any]:
    """Shards done, the process that works on it, and the seconds left at the pace so far; at:
    seconds since the epoch.
    """
    folder = Folder(output)
    plan = folder.plan()
    keys = shard_keys(plan)
    done = sum(1 for _ in folder.receipts(plan.digest))
    lease = folder.read_json("lease.json")
    lease = lease if living(lease, at) else None
    left = None
    if lease and keys:
        fresh = [
            file.stat().st_mtime
            for file in (folder.path / "receipts").glob("*/*.json")
            if file.stat().st_mtime >= lease["started"]
        ]
        if fresh:
            left = (at - lease["started"]) / len(fresh) * (len(keys) - done)
    state = "done" if keys and done >= len(keys) else "running" if lease else "interrupted"
    by = f"process {lease['pid']} on {lease['host']}" if lease else "nobody"
    text = f"{output}: {done} of {len(keys)} shards, {state}; at work: {by}" + (
        f"; about {left:.0f} s left" if left is not None else ""
    )
    if state == "interrupted":
        text += "; the upscale command again goes on"
    return {
        "status": state,
        "output": output,
        "plan": plan.digest,
        "shards": {"total": len(keys), "done": done},
        "lease": lease,
        "here": bool(lease and lease["host"] == socket.gethostname()),
        "seconds_left": left,
        "text": text,
        "error": None,
    }
