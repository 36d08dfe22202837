"""From a request to a finished output: plan it, carry it out on a pool, close it.

The driver touches coordinates and receipts, never pixels.
"""

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import automatic, prepare, report, store
from pipeline.difficulty import SCOUT_ROWS, blocks
from pipeline.errors import Damaged, Interrupted, Refused
from pipeline.facts import PhotoFacts
from pipeline.grid import Rect, Span
from pipeline.ingest import rows_done
from pipeline.plan import Options, Plan, differences
from pipeline.pool import Pool
from pipeline.receipts import Folder, Key, Lease, Receipt, write_json

# Times that one shard is tried before its image is given up.
TRIES = 3

Progress = Callable[[str, int, int], None]


def silent(stage: str, done: int, total: int) -> None:
    """Progress for nobody."""


class Quarantined(Damaged):
    """A shard failed TRIES times for no reason that we know; its image is put aside."""


@dataclass(frozen=True, slots=True)
class Request:
    """One image to enlarge: where it is, where the result goes, and how.

    max_memory: bytes that all processes together may take, or None. overwrite: replace an output of ours that was planned otherwise.
    """

    source: str
    output: str
    options: Options = field(default_factory=Options)
    max_memory: int | None = None
    overwrite: bool = False
    keep_source: bool = False

    def __post_init__(self) -> None:
        # Workers on a cluster run in other folders: a relative path would mean another place there.
        if "://" not in self.output:
            object.__setattr__(self, "output", os.path.abspath(self.output))


@dataclass(slots=True)
class Run:
    """One request on its way; collects what the result table will say."""

    request: Request
    pool: Pool
    progress: Progress = silent
    stop: threading.Event = field(default_factory=threading.Event)
    seconds: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("ingest", "score", "enlarge", "stitch", "pyramid", "total"), 0.0)
    )
    notes: list[str] = field(default_factory=list)
    plan: Plan | None = None
    done_before: int = 0
    written: int = 0

    @property
    def folder(self) -> Folder:
        return Folder(self.request.output)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the seconds of a stage."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - began

    def carry_out(self) -> dict[str, Any]:
        """Everything from the source to the closed output; the summary. Raises Refused, Damaged, Interrupted."""
        began = time.perf_counter()
        prepare.check_paths(self.request.source, self.request.output)
        draft, facts = prepare.draft(self.request.source, self.request.options, self.request.max_memory, self.pool.device, self.pool.width)
        self.notes.extend(facts.notes)
        # Whatever is decided from what lies there is decided under the lease: another run may have written it a moment ago.
        with Lease(self.folder):
            self.plan = self._planned(draft, facts)
            self._write_shards()
            self._write_pyramid()
            self.seconds["total"] = time.perf_counter() - began
            self._close(facts)
        return self.summary("done")

    def stored(self, draft: Plan) -> Plan | None:
        """The plan to go on with; None: there is none, or it will be overwritten. Refused: not our output, or planned otherwise."""
        output = self.request.output
        if not self.folder.exists():
            if Path(output).exists():
                raise Refused(f"{output} exists and was not made by tierscale; choose another output, or move it away")
            return None
        try:
            plan = self.folder.plan()
            found = differences(plan.asked(), draft.asked())
            if not found:
                return plan
            if not self.request.overwrite:
                raise Refused(
                    f"{output} was begun with another plan ({'; '.join(found)}); ask for the same as before to go on, "
                    "choose another output, or give --overwrite to begin anew"
                )
        except Refused:
            if not self.request.overwrite:
                raise
        store.check_ours(output)
        return None

    def _planned(self, draft: Plan, facts: prepare.Found) -> Plan:
        """The stored plan if there is one, else a new one with the pre-pass done; and the output made."""
        plan = self.stored(draft)
        if plan is None:
            plan = self._new_plan(draft, facts)
        elif facts.needs_ingest and not self._complete(plan):
            self._ingest(facts)
        plan = replace(plan, source={**plan.source, "uri": self._pixels_uri(facts), "ingested": facts.needs_ingest})
        self._make_output(plan, facts.facts)
        return plan

    def _new_plan(self, draft: Plan, facts: prepare.Found) -> Plan:
        """A plan with the pre-pass done, stored; an output that it overwrites stays until nothing can refuse the plan any more."""
        plan, scores = self.prepass(draft, facts, self.folder.path)
        prepare.check_disk(plan, self.request.output)
        store.remove(self.request.output, keep=("lease.json", "source.zarr") if facts.needs_ingest else ("lease.json",))
        report.write_tiles(self.folder.path, plan, scores)
        write_json(self.folder.path / "facts.json", facts.hr_facts.to_json())
        self.folder.write_plan(plan)
        return plan

    def _pixels_uri(self, facts: prepare.Found) -> str:
        """Where workers read pixels: the source itself, or its ingested copy."""
        return str(self.folder.path / "source.zarr") if facts.needs_ingest else facts.uri

    def prepass(self, draft: Plan, facts: prepare.Found, folder: Path) -> tuple[Plan, np.ndarray]:
        """Ingest if need be, measure the range, score all tiles, and choose their tiers: the plan and the scores (tiles, tiers)."""
        if facts.needs_ingest:
            self._ingest(facts, folder)
            draft = replace(draft, source={**draft.source, "uri": str(folder / "source.zarr"), "ingested": True})
        with self.stage("score"):
            levels = prepare.levels(draft, self.request.options.value_range, facts.nodata, lambda rows: self._measure(draft, rows, facts))
            scored = replace(draft, levels=levels)
            scores = self._score(scored)
            plan = draft.frozen(levels, prepare.route(scored, scores), automatic.given(scored, lambda *asked: self._look(scored, *asked)))
        return replace(plan, source={**plan.source, "uri": facts.uri, "ingested": False}), scores

    def _ingest(self, facts: prepare.Found, folder: Path | None = None) -> None:
        target = (folder or self.folder.path) / "source.zarr"
        with self.stage("ingest"):
            future = self.pool.submit("ingest", facts.uri, facts.selection, str(target), self.request.max_memory)
            while not wait([future], timeout=1).done:
                self.progress("ingest", *rows_done(str(target)))
            future.result()
            _, total = rows_done(str(target))
            self.progress("ingest", total, total)

    def _measure(self, draft: Plan, rows: list[Span], facts: prepare.Found) -> list[tuple[float, float]]:
        """Smallest and largest value of some blocks of rows."""
        handle = self.pool.share(draft)
        return self._each("range", [("measure", handle, span, facts.nodata) for span in rows])

    def _look(self, plan: Plan, tier: int, places: list[list[Rect]]) -> list[automatic.Seen]:
        """What a tier sees of some lists of places."""
        handle = self.pool.share(plan)
        return self._each("statistics", [("look", handle, tier, some) for some in places])

    def _score(self, plan: Plan) -> np.ndarray:
        """Predicted errors of all tiles: (tiles, tiers)."""
        rows, columns = plan.grid.tiles
        tiers = len(plan.tiers)
        if plan.scores == "none":
            return np.zeros((rows * columns, tiers), np.float32)
        handle = self.pool.share(plan)
        found = self._each("score", [("score", handle, span) for span in blocks(rows, SCOUT_ROWS)])
        return np.concatenate(found).reshape(rows * columns, tiers)

    def _each(self, stage: str, calls: list[tuple[Any, ...]]) -> list[Any]:
        """Results of many calls, in order, a bounded number of them under way."""
        results: list[Any] = [None] * len(calls)
        flying: dict[Future, int] = {}
        queue = iter(enumerate(calls))
        done = 0
        while True:
            while len(flying) < 2 * self.pool.width and not self.stop.is_set():
                following = next(queue, None)
                if following is None:
                    break
                flying[self.pool.submit(*following[1])] = following[0]
            if not flying:
                break
            for future in wait(flying, return_when=FIRST_COMPLETED).done:
                results[flying.pop(future)] = future.result()
                done += 1
                self.progress(stage, done, len(calls))
        if self.stop.is_set():
            raise Interrupted
        return results

    def _make_output(self, plan: Plan, facts: PhotoFacts) -> None:
        """Make the empty arrays, unless an earlier run did. Refused: something that is not this plan's output is in their place."""
        if not store.made(self.request.output, plan.digest, len(store.level_sizes(plan.grid.hr_size))):
            # Receipts go first: an empty array must never stand beside receipts that say it is full.
            shutil.rmtree(self.folder.path / "receipts", ignore_errors=True)
            dtype, grid = np.dtype(plan.dtype), plan.grid
            assert plan.levels is not None
            attributes = store.ome_attributes(
                Path(self.request.source).name, plan.hr_shape, dtype, plan.colour, facts, plan.scale, (plan.levels.low, plan.levels.high)
            )
            chunk = store.chunk_shape(plan.shape, grid.hr_shard, grid.shard_tiles, dtype, plan.colour)
            store.create(
                self.request.output, plan.hr_shape, dtype, grid.hr_shard, chunk, {**attributes, "tierscale": {"plan": plan.digest}}
            )

    def _keys(self, plan: Plan, level: int) -> list[Key]:
        """All shards of one level."""
        return [key for key in shard_keys(plan) if key[0] == level]

    def _complete(self, plan: Plan) -> bool:
        """Whether level 0 has all its receipts."""
        have = {receipt.key for receipt in self.folder.receipts(plan.digest) if receipt.level == 0}
        return len(have) == plan.grid.shards[0] * plan.grid.shards[1]

    def _write_shards(self) -> None:
        plan = self.plan
        assert plan is not None
        handle = self.pool.share(plan)
        began = time.perf_counter()
        receipts = self._fill("enlarge", self._keys(plan, 0), lambda key: self._start(plan, handle, key))
        wall = time.perf_counter() - began
        # Stages overlap between workers; their share of the wall time is that of the workers' own seconds.
        enlarging = sum(receipt.seconds.get("enlarge", 0) for receipt in receipts)
        stitching = sum(sum(receipt.seconds.values()) for receipt in receipts) - enlarging
        if enlarging + stitching > 0:
            self.seconds["enlarge"] += wall * enlarging / (enlarging + stitching)
            self.seconds["stitch"] += wall * stitching / (enlarging + stitching)

    def _start(self, plan: Plan, handle: Any, key: Key) -> list[tuple[Any, ...]]:
        """The calls that make one shard, each taking the result of the one before."""
        shard = (key[1], key[2])
        tiers = {work.tier for work in plan.works(shard)}
        dearest = len(plan.tiers) - 1
        if not self.pool.split or tiers == {dearest}:
            return [("full" if tiers == {dearest} else "light", "finish", handle, self.request.output, shard)]
        if dearest in tiers:
            return [("full", "enlarge", handle, shard, (dearest,)), ("light", "finish", handle, self.request.output, shard)]
        return [("light", "finish", handle, self.request.output, shard)]

    def _write_pyramid(self) -> None:
        plan = self.plan
        assert plan is not None
        handle = self.pool.share(plan)
        with self.stage("pyramid"):
            for level in range(1, len(store.level_sizes(plan.grid.hr_size))):
                self._fill(
                    "pyramid",
                    self._keys(plan, level),
                    lambda key: [("light", "pyramid", handle, self.request.output, key[0], (key[1], key[2]))],
                )

    def _fill(self, stage: str, keys: list[Key], start: Callable[[Key], list[tuple[Any, ...]]]) -> list[Receipt]:
        """Get a receipt for every key that has none; those of this run. Damaged: a shard failed TRIES times."""
        assert self.plan is not None
        have = {receipt.key for receipt in self.folder.receipts(self.plan.digest)}
        todo = [key for key in keys if key not in have]
        self.done_before += len(keys) - len(todo)
        flight = Flight(self.pool, start)
        receipts: list[Receipt] = []
        queue = iter(todo)
        self.progress(stage, len(keys) - len(todo), len(keys))
        while True:
            while len(flight) < 2 * self.pool.width and not self.stop.is_set():
                key = next(queue, None)
                if key is None:
                    break
                flight.launch(key)
            if not len(flight):
                break
            for receipt in flight.landed():
                receipts.append(receipt)
                self.written += 1
                self.progress(stage, len(keys) - len(todo) + len(receipts), len(keys))
        if self.stop.is_set() and len(receipts) < len(todo):
            raise Interrupted
        return receipts

    def _close(self, facts: prepare.Found) -> None:
        plan = self.plan
        assert plan is not None
        receipts = list(self.folder.receipts(plan.digest))
        wanted = set(shard_keys(plan))
        absent = wanted - {receipt.key for receipt in receipts}
        prepare.check_unchanged(plan, facts)
        if absent:
            raise Damaged(
                f"{self.request.output} lacks {len(absent)} of {len(wanted)} receipts, such as {min(absent)}; give the same command again"
            )
        if retreats := sorted({label for receipt in receipts for label in receipt.retreats}):
            self.notes.append(f"memory ran out for {', '.join(retreats)}: smaller batches were used, which may change values by 1 of 255")
        self.pool.submit("draw", self.pool.share(plan), self.request.output).result()
        report.close(self.request.output, plan, receipts, self.summary("done"), facts.hr_facts, self.notes)
        if facts.needs_ingest and not self.request.keep_source:
            shutil.rmtree(self.folder.path / "source.zarr", ignore_errors=True)

    def summary(self, status: str, error: str | None = None) -> dict[str, Any]:
        """What --json prints and the result table holds."""
        plan = self.plan
        receipts = [r for r in self.folder.receipts(plan.digest) if r.level == 0] if plan else []
        tiles: dict[str, int] = {tier.label: 0 for tier in plan.tiers} if plan else {}
        for receipt in receipts:
            for label, count in receipt.tiles.items():
                tiles[label] = tiles.get(label, 0) + count
        cost = sum(receipt.cost for receipt in receipts)
        total = len(shard_keys(plan)) if plan else 0
        folder = self.folder.path
        files = {
            name: str(folder / file) for name, file in (("preview", "preview.png"), ("routing", "routing.png"), ("tiles", "tiles.parquet"))
        }
        return {
            "status": status,
            "output": self.request.output,
            "plan": plan.digest if plan else None,
            "shape": list(plan.hr_shape) if plan else None,
            "dtype": plan.dtype if plan else None,
            "scale": str(self.request.options.scale),
            "tiles": tiles,
            "cost": cost,
            "cost_share": cost / prepare.dearest_cost(plan) if plan and receipts else None,
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
            "shards": {"total": total, "done_before": self.done_before, "written": self.written},
            "files": files,
            "notes": self.notes,
            "error": error,
        }


def shard_keys(plan: Plan) -> list[Key]:
    """All shards of a plan's output, full resolution first."""
    return list(store.shard_keys(plan.grid.hr_size, plan.grid.hr_shard))


class Flight:
    """Shards under way: each a chain of calls on the pool, begun again when one fails for a passing reason.

    start: the calls for a key, (kind, method, *arguments) each; a call is given the result of the one before as last argument.
    """

    def __init__(self, pool: Pool, start: Callable[[Key], list[tuple[Any, ...]]]) -> None:
        self.pool = pool
        self.start = start
        self.chains: dict[Future, tuple[Key, list[tuple[Any, ...]]]] = {}
        self.tries: dict[Key, int] = {}

    def __len__(self) -> int:
        return len(self.chains)

    def launch(self, key: Key) -> None:
        """Begin a shard."""
        self.tries[key] = self.tries.get(key, 0) + 1
        self._step(key, self.start(key), ())

    def _step(self, key: Key, calls: list[tuple[Any, ...]], given: tuple[Any, ...]) -> None:
        (kind, *call), rest = calls[0], calls[1:]
        self.chains[self.pool.submit(*call, *given, kind=kind, keep=bool(rest))] = (key, rest)

    def landed(self) -> Iterator[Receipt]:
        """Receipts of the shards that came down, after waiting for at least one call to end."""
        for future in wait(self.chains, timeout=5, return_when=FIRST_COMPLETED).done:
            key, rest = self.chains.pop(future)
            try:
                result = future.result()
            except Refused:
                raise
            except Exception as error:
                self._again(key, error)
                continue
            if rest:
                self._step(key, rest, (result,))
            else:
                yield result

    def _again(self, key: Key, error: Exception) -> None:
        """Try a shard once more, or give it up. A full disk or a damaged source will not get better by itself."""
        if isinstance(error, Damaged):
            raise error
        if self.tries[key] >= TRIES:
            raise Quarantined(
                f"shard {key[1]}.{key[2]} of level {key[0]} failed {TRIES} times; the last time: {type(error).__name__}: {error}"
            ) from error
        self.launch(key)


def plan_only(request: Request, pool: Pool, progress: Progress = silent) -> tuple[Plan, dict[str, Any]]:
    """The plan of a request and what it will take; nothing is written to the output."""
    prepare.check_paths(request.source, request.output)
    run = Run(request, pool, progress)
    draft, facts = prepare.draft(request.source, request.options, request.max_memory, pool.device, pool.width)
    began = time.perf_counter()
    plan = run.stored(draft)
    if plan is None:
        with tempfile.TemporaryDirectory(prefix="tierscale-") as folder:
            plan, _ = run.prepass(draft, facts, Path(folder))
    run.plan = plan
    run.notes.extend(facts.notes)
    run.seconds["total"] = time.perf_counter() - began
    return plan, {**run.summary("done"), **prepare.outlook(plan, facts, pool.width)}


def heal(output: str, pool: Pool, bad: list[Receipt]) -> list[Receipt]:
    """Do damaged shards again, full resolution first, then the levels above them; their new receipts."""
    folder = Folder(output)
    plan = folder.plan()
    copy = folder.path / "source.zarr"
    kept = copy.exists()
    found = prepare.reopen(plan)
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
        shutil.rmtree(copy, ignore_errors=True)
    return healed
