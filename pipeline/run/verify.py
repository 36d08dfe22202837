"""Inspect an output: is every shard there and as its receipt says, how far is a run."""

import contextlib
import random
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import itemgetter
from typing import Any

from tierscale.pipeline.errors import Damaged, Held, Interrupted, Refused
from tierscale.pipeline.formats.arrays.ingest import discard
from tierscale.pipeline.output.levels import Key
from tierscale.pipeline.output.receipt import Receipt
from tierscale.pipeline.output.receipts import Folder
from tierscale.pipeline.output.stored_files import has_other_length, stored_files
from tierscale.pipeline.plan.plan import Plan
from tierscale.pipeline.run.inspect import reopen
from tierscale.pipeline.run.planning import COPY
from tierscale.pipeline.run.run import shard_keys
from tierscale.pipeline.run.shards.opinions import Attempt, Opinions
from tierscale.pipeline.run.shards.queue import ShardQueue, Step
from tierscale.pipeline.run.workers.bounded import bounded_map
from tierscale.pipeline.run.workers.pool import Handle, Pool
from tierscale.pipeline.run.workers.prescan_tasks import IngestSource
from tierscale.pipeline.run.workers.shard_tasks import (
    Difference,
    FinishShard,
    HalveShards,
    VerifyShard,
)
from tierscale.pipeline.storage.lease import Lease, living
from tierscale.pipeline.wording import counted

OTHER = "this version has another bytes_version than the one that wrote them (see their receipts)"


def is_finished(folder: Folder, plan: Plan) -> bool:
    """Whether every shard has its receipt, and a file that is as long as its receipt says."""
    return set(shard_keys(plan)) <= _done(folder, plan)


def _done(folder: Folder, plan: Plan) -> set[Key]:
    """The shards that have their receipt and their file."""
    files = stored_files(folder.output)
    return {
        receipt.key
        for receipt in folder.receipts(plan.digest)
        if not has_other_length(files.get(receipt.key), receipt.bytes)
    }


@dataclass(frozen=True, slots=True)
class Look:
    """How outputs are looked at.

    heal: make again what is not as it should be. choose: those of an output's shards that are read
    back. stop: once it is set, no shard is begun.
    """

    heal: bool = False
    choose: Callable[[Sequence[Key]], Sequence[Key]] = tuple
    stop: threading.Event = field(default_factory=threading.Event)


class Sample:
    """Chooses a share of all shards that it is asked for, but one at least.

    share: above 0, up to 1. seed: of the choice.
    """

    def __init__(self, share: float, seed: int) -> None:
        self.share, self._random = share, random.Random(seed)
        # What is not a whole shard is carried from output to output; rounded up in all.
        self._carried = 1.0 - 1e-9

    def __call__(self, keys: Sequence[Key]) -> Sequence[Key]:
        """Some of the shards of one output."""
        self._carried += self.share * len(keys)
        count = min(int(self._carried), len(keys))
        self._carried -= count
        return sorted(self._random.sample(keys, count))


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found.

    shards: that were read back. problems, notes: sentences. healed: number of problems that are
    none any more.
    """

    shards: int
    problems: tuple[str, ...] = ()
    healed: int = 0
    notes: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        """Whether all is as it should be by now."""
        return self.healed == len(self.problems)

    def __add__(self, other: "Verification") -> "Verification":
        return Verification(
            self.shards + other.shards,
            self.problems + other.problems,
            self.healed + other.healed,
            self.notes + other.notes,
        )


@dataclass(frozen=True, slots=True)
class _Fault:
    """What is wrong with one shard.

    receipt: its own, or None. found: checksum of the pixels that are there, None: none can be read.
    """

    key: Key
    text: str
    receipt: Receipt | None = None
    found: str | None = None

    def equals(self, made: Receipt) -> bool:
        """Whether a shard that was made again is the one that was made first.

        Its checksum is that of the receipt, or that of the shard, if it was the receipt that was
        damaged. Without a receipt there is nothing to compare with.
        """
        known = None if self.receipt is None else self.receipt.pixels_sha256
        return known is None or made.pixels_sha256 in (known, self.found)

    def has_other_bytes(self, made: Receipt) -> bool:
        """Whether it is another one, as is right by another bytes_version."""
        before = None if self.receipt is None else self.receipt.bytes_version
        return not self.equals(made) and made.bytes_version != before


def verify_output(output: str, pool: Pool, look: Look) -> Verification:
    """Compare shards with their receipts, and make again what differs if that is asked for.

    Refused: it is no output. Unreachable: its store does not answer. Interrupted: told to stop.
    """
    folder = Folder(output)
    plan = folder.plan()
    keys = shard_keys(plan)
    chosen = look.choose(keys)
    receipts = _receipts(folder, plan, chosen, whole=len(chosen) == len(keys))
    missing = {*keys} - folder.receipt_keys() | {key for key in chosen if key not in receipts}
    texts: list[str] = []
    faults = [_without_receipt(output, key) for key in sorted(missing)]
    if missing and not folder.closed():
        faults.clear()
        texts.append(
            f"{output} is not finished: {len(missing)} of its {len(keys)} shards have no receipt;"
            " to resume, run the upscale command again"
        )
    there = [receipts[key] for key in chosen if key in receipts]
    faults.extend(_compare(output, pool, there, look.stop))
    healed = Verification(len(chosen))
    if look.heal and faults:
        try:
            healed += _heal_faults(output, pool, faults, look)
        except Held:
            raise
        except (Refused, Damaged) as error:
            texts.append(f"{output} cannot be healed: {error}")
    return replace(healed, problems=(*texts, *(fault.text for fault in faults)))


def _heal_faults(output: str, pool: Pool, faults: Sequence[_Fault], look: Look) -> Verification:
    """Make the shards of some faults again; how many are right by now, and what is to be said."""
    with Lease(Folder(output).path):
        made, notes = _heal(output, pool, [fault.key for fault in faults], look)
    equal = sum(fault.equals(made[fault.key]) for fault in faults)
    other = sum(fault.has_other_bytes(made[fault.key]) for fault in faults)
    if other:
        notes.append(f"{counted(other, 'shard')} made again with other bytes: {OTHER}")
    return Verification(0, (), equal + other, tuple(f"{output}: {note}" for note in notes))


def _without_receipt(output: str, key: Key) -> _Fault:
    level, y, x = key
    return _Fault(
        key,
        f"{output} level {level} shard {y}.{x} has no receipt that can be used; tierscale verify"
        " --heal makes it again",
    )


def _receipts(folder: Folder, plan: Plan, keys: Sequence[Key], whole: bool) -> dict[Key, Receipt]:
    """The receipts of some shards; of all, many are read at a time."""
    if whole:
        return {receipt.key: receipt for receipt in folder.receipts(plan.digest)}
    found: dict[Key, Receipt] = {}
    for key in keys:
        with contextlib.suppress(Damaged):
            found[key] = folder.receipt(plan.digest, key)
    return found


def _heal(
    output: str, pool: Pool, keys: Sequence[Key], look: Look
) -> tuple[dict[Key, Receipt], list[str]]:
    """Make shards again, full resolution first, then the levels above.

    Their new receipts, and what is to be said of how faithful they are.
    """
    folder = Folder(output)
    plan = folder.plan()
    copy, source = folder.path / COPY, reopen(plan)
    kept, pixels = copy.exists(), plan.source.in_place
    if source.needs_ingest:
        pool.submit(IngestSource(source.uri, source.selection, str(copy), None)).result()
        pixels = plan.source.copied_to(str(copy))
    handle: Handle[Plan] = pool.put(plan)
    opinions = Opinions(plan, pool, output)

    def chain(key: Key, attempt: Attempt) -> tuple[Step, ...]:
        level, y, x = key
        halve = HalveShards(handle, output, level, (y, x))
        finish = FinishShard(handle, pixels, output, (y, x), None, attempt.rule, attempt.seen)
        return (Step("light", lambda _: halve if level else finish),)

    made: dict[Key, Receipt] = {}
    # A level is made from the one below, which must be whole by then.
    for _, level in groupby(sorted(keys), key=itemgetter(0)):
        for receipt in ShardQueue(level, chain, opinions, look.stop).run(pool):
            made[receipt.key] = receipt
        if look.stop.is_set():
            raise Interrupted
    if not kept:
        discard(copy)
    return made, opinions.notes()


def _compare(
    output: str, pool: Pool, receipts: Sequence[Receipt], stop: threading.Event
) -> Iterator[_Fault]:
    """What is wrong with the shards of some receipts, a bounded number under way."""

    def start(receipt: Receipt) -> Future[Difference | None]:
        return pool.submit(VerifyShard(output, receipt))

    for receipt, future in bounded_map(receipts, start, 2 * pool.width, stop):
        if (difference := future.result()) is not None:
            yield _Fault(receipt.key, difference.text, receipt, difference.found)
    if stop.is_set():
        raise Interrupted


def status_of(output: str, at: float) -> dict[str, Any]:
    """Shards done, the process at work on it, and the seconds left at the pace so far.

    at: seconds since the epoch.
    """
    folder = Folder(output)
    plan = folder.plan()
    total = len(shard_keys(plan))
    done = len(_done(folder, plan))
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
