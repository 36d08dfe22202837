"""From a request to a finished output: plan it, carry it out on a pool, close it.

The driver touches coordinates and receipts, never pixels.
"""

import os
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tierscale.pipeline.errors import Damaged, Interrupted, Refused
from tierscale.pipeline.formats.arrays.ingest import discard, rows_done
from tierscale.pipeline.formats.metadata import PhotoMetadata
from tierscale.pipeline.output import kept_scores as scores
from tierscale.pipeline.output import report, store
from tierscale.pipeline.output.ome import ome_attributes
from tierscale.pipeline.output.receipts import Folder, Key
from tierscale.pipeline.plan.plan import Options, Plan, differences, outdated
from tierscale.pipeline.routing import routes as choosing
from tierscale.pipeline.routing.costs import cost_share, full_cost
from tierscale.pipeline.run import draft as prepare
from tierscale.pipeline.run import resources as needs
from tierscale.pipeline.run.inspect import SourceInfo, check_unchanged
from tierscale.pipeline.run.pool import Pool
from tierscale.pipeline.run.prescan import Prepass
from tierscale.pipeline.run.tasks import Flight, Progress, silent
from tierscale.pipeline.storage.atomic import write_json
from tierscale.pipeline.storage.lease import Lease
from tierscale.pipeline.storage.paths import Place, place, remove_tree

# Budgets that a plan tells the quality of.
SHARES = (0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)


@dataclass(frozen=True, slots=True)
class Request:
    """One image to enlarge: where it is, where the result goes, and how.

    max_memory: bytes that all processes together may take, or None. overwrite: replace an output of
    ours that was planned otherwise. renew: replace one of ours that was planned the same way, of
    what the source held before.
    """

    source: str
    output: str
    options: Options = field(default_factory=Options)
    max_memory: int | None = None
    overwrite: bool = False
    keep_source: bool = False
    renew: bool = False

    def __post_init__(self) -> None:
        # Workers on a cluster run in other folders: a relative path would mean another place there.
        if "://" not in self.output:
            object.__setattr__(self, "output", os.path.abspath(self.output))


@dataclass(slots=True)
class Run:
    """One request on its way; collects what the result table will say.

    routes: of the tiles, where an archive has chosen them. clock: of a deadline that is an
    archive's. began: in perf_counter's seconds.
    """

    request: Request
    pool: Pool
    progress: Progress = silent
    stop: threading.Event = field(default_factory=threading.Event)
    routes: np.ndarray | None = None
    clock: choosing.TimeLimit | None = None
    began: float = field(default_factory=time.perf_counter)
    seconds: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(
            ("ingest", "score", "enlarge", "stitch", "pyramid", "total"), 0.0
        )
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
        """Everything from the source to the closed output; the summary. Raises Refused, Damaged,
        Interrupted.
        """
        prepare.check_paths(self.request.source, self.request.output)
        draft, facts = prepare.draft(
            self.request.source,
            self.request.options,
            self.request.max_memory,
            self.pool.device,
            self.pool.width,
        )
        self.notes.extend(facts.notes)
        # Whatever is decided from what lies there is decided under the lease: another run may have
        # written it a moment ago.
        with Lease(self.folder.path):
            self.plan = self._planned(draft, facts)
            self._write_shards()
            self._write_pyramid()
            self.seconds["total"] = time.perf_counter() - self.began
            self._close(facts)
        return self.summary("done")

    def stored(self, draft: Plan) -> Plan | None:
        """The plan to go on with; None: there is none, or it will be overwritten. Refused: not our
        output, or planned otherwise.
        """
        output = self.request.output
        if not self.folder.exists():
            if place(output).exists():
                if not self.request.overwrite:
                    raise Refused(
                        f"{output} exists and was not made by tierscale; choose another output, or"
                        " move it away"
                    )
                store.check_ours(output)
            return None
        try:
            plan = self.folder.plan()
        except Refused:
            if not self.request.overwrite:
                raise
        else:
            found = differences(plan.asked(), draft.asked())
            if not found:
                return plan
            if not (self.request.overwrite or (self.request.renew and outdated(plan, draft))):
                raise Refused(
                    f"{output} was begun with another plan ({'; '.join(found)}); ask for the same"
                    " as before to go on, choose another output, or give --overwrite to begin anew"
                )
        store.check_ours(output)
        return None

    def _planned(self, draft: Plan, facts: SourceInfo) -> Plan:
        """The stored plan if there is one, else a new one with the pre-pass done; and the output
        made.
        """
        stored = self.stored(draft)
        plan = stored or self._new_plan(draft, facts)
        # First of all: where the output is gone, its receipts go too, and then its shards need the
        # ingested copy again.
        self._make_output(plan, facts.facts)
        if stored is not None and facts.needs_ingest and not self._complete(plan):
            self._ingest(facts)
        return replace(
            plan,
            source={**plan.source, "uri": self._pixels_uri(facts), "ingested": facts.needs_ingest},
        )

    def _new_plan(self, draft: Plan, facts: SourceInfo) -> Plan:
        """A plan with the pre-pass done, stored; an output that it overwrites stays until nothing
        can refuse the plan any more.
        """
        needs.check_disk(draft, self.request.output)
        plan, found = self.prepass(draft, facts, self.folder.path)
        store.remove(
            self.request.output,
            keep=("lease.json", "source.zarr") if facts.needs_ingest else ("lease.json",),
        )
        report.write_tiles(self.folder.path, plan, found)
        write_json(self.folder.path / "facts.json", facts.scaled_metadata.to_json())
        self.folder.write_plan(plan)
        return plan

    def _pixels_uri(self, facts: SourceInfo) -> str:
        """Where workers read pixels: the source itself, or its ingested copy."""
        return str(self.folder.path / "source.zarr") if facts.needs_ingest else facts.uri

    def prepass(self, draft: Plan, facts: SourceInfo, folder: Place) -> tuple[Plan, np.ndarray]:
        """Ingest if need be, measure the range, score all tiles, and choose their tiers: the plan
        and the scores (tiles, tiers).
        """
        scored, found = self.look(draft, facts, folder)
        assert scored.levels is not None and scored.given is not None
        with self.stage("score"):
            plan = draft.frozen(scored.levels, self._route(scored, found), scored.given)
        self.notes.extend(choosing.remarks(plan))
        return plan, found

    def look(self, draft: Plan, facts: SourceInfo, folder: Place) -> tuple[Plan, np.ndarray]:
        """Ingest if need be, and look at the image unless that was kept: the plan without routes,
        and scores (tiles, tiers).
        """
        if facts.needs_ingest:
            self._ingest(facts, folder)
            draft = replace(
                draft, source={**draft.source, "uri": str(folder / "source.zarr"), "ingested": True}
            )
        with self.stage("score"):
            return scores.kept(folder, draft) or self._prepass.look(
                draft, facts, self.request.options.value_range
            )

    @property
    def _prepass(self) -> Prepass:
        return Prepass(self.pool, self.progress, self.stop)

    def _route(self, plan: Plan, found: np.ndarray) -> np.ndarray:
        """The tier of every tile, (rows, columns). plan: with levels; found: scores (tiles,
        tiers).
        """
        if self.routes is not None:
            return self.routes
        if plan.policy["name"] != "deadline":
            return choosing.route(plan, found)
        clock = self.clock or choosing.TimeLimit(
            lambda: plan.policy["deadline"] - (time.perf_counter() - self.began), self.pool.width
        )
        return choosing.route(plan, found, self._prepass.time(plan, clock))

    def _ingest(self, facts: SourceInfo, folder: Place | None = None) -> None:
        target = (folder or self.folder.path) / "source.zarr"
        with self.stage("ingest"):
            future = self.pool.submit(
                "ingest", facts.uri, facts.selection, str(target), self.request.max_memory
            )
            while not wait([future], timeout=1).done:
                self.progress("ingest", *rows_done(str(target)))
            future.result()
            _, total = rows_done(str(target))
            self.progress("ingest", total, total)

    def _make_output(self, plan: Plan, facts: PhotoMetadata) -> None:
        """Make the empty arrays, unless an earlier run did. Refused: something that is not this
        plan's output is in their place.
        """
        if not store.made(
            self.request.output, plan.digest, len(store.level_sizes(plan.grid.hr_size))
        ):
            # Receipts go first: an empty array must never stand beside receipts that say it is
            # full.
            remove_tree(self.folder.path / "receipts")
            dtype, grid = np.dtype(plan.dtype), plan.grid
            assert plan.levels is not None
            attributes = ome_attributes(
                Path(self.request.source).name,
                plan.hr_shape,
                dtype,
                plan.colour,
                facts,
                plan.scale,
                (plan.levels.low, plan.levels.high),
            )
            chunk = store.chunk_shape(
                plan.shape, grid.hr_shard, grid.shard_tiles, dtype, plan.colour
            )
            store.create(
                self.request.output,
                plan.hr_shape,
                dtype,
                grid.hr_shard,
                chunk,
                {**attributes, "tierscale": {"plan": plan.digest}},
            )

    def _keys(self, plan: Plan, level: int) -> list[Key]:
        """All shards of one level."""
        return [key for key in shard_keys(plan) if key[0] == level]

    def _complete(self, plan: Plan) -> bool:
        """Whether level 0 has all its receipts."""
        have = {receipt.key for receipt in self.folder.receipts(plan.digest, 0)}
        return len(have) == plan.grid.shards[0] * plan.grid.shards[1]

    def _write_shards(self) -> None:
        plan = self.plan
        assert plan is not None
        handle = self.pool.share(plan)
        began = time.perf_counter()
        taken = self._fill("enlarge", 0, lambda key: self._start(plan, handle, key))
        wall = time.perf_counter() - began
        # Stages overlap between workers; their share of the wall time is that of the workers' own
        # seconds.
        enlarging = taken["enlarge"]
        stitching = sum(taken.values()) - enlarging
        if enlarging + stitching > 0:
            self.seconds["enlarge"] += wall * enlarging / (enlarging + stitching)
            self.seconds["stitch"] += wall * stitching / (enlarging + stitching)

    def _start(self, plan: Plan, handle: Any, key: Key) -> list[tuple[Any, ...]]:
        """The calls that make one shard, each taking the result of the one before."""
        shard = (key[1], key[2])
        dearest = len(plan.tiers) - 1
        # To lay out a shard takes milliseconds, which a driver with many workers has not: it is
        # done where it must be.
        tiers = {work.tier for work in plan.works(shard)} if self.pool.split else set()
        finish = (
            "full" if tiers == {dearest} else "light",
            "finish",
            handle,
            self.request.output,
            shard,
        )
        return (
            [("full", "enlarge", handle, shard, (dearest,)), finish]
            if dearest in tiers and len(tiers) > 1
            else [finish]
        )

    def _write_pyramid(self) -> None:
        plan = self.plan
        assert plan is not None
        handle = self.pool.share(plan)
        with self.stage("pyramid"):
            for level in range(1, len(store.level_sizes(plan.grid.hr_size))):
                self._fill(
                    "pyramid",
                    level,
                    lambda key: [
                        ("light", "pyramid", handle, self.request.output, key[0], key[1:])
                    ],
                )

    def _fill(
        self, stage: str, level: int, start: Callable[[Key], list[tuple[Any, ...]]]
    ) -> Counter[str]:
        """Get a receipt for every shard of a level that has none; the seconds of this run by stage.
        Damaged: a shard failed TRIES times.
        """
        assert self.plan is not None
        keys = self._keys(self.plan, level)
        have = {receipt.key for receipt in self.folder.receipts(self.plan.digest, level)}
        todo = [key for key in keys if key not in have]
        self.done_before += len(keys) - len(todo)
        flight = Flight(self.pool, start, self.request.output)
        taken: Counter[str] = Counter()
        landed = 0
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
                taken.update(receipt.seconds)
                landed += 1
                self.written += 1
                self.progress(stage, len(keys) - len(todo) + landed, len(keys))
        if self.stop.is_set() and landed < len(todo):
            raise Interrupted
        return taken

    def _close(self, facts: SourceInfo) -> None:
        plan = self.plan
        assert plan is not None
        absent, retreats = set(shard_keys(plan)), set[str]()
        total, macs = len(absent), np.zeros((2, *plan.grid.tiles))
        for receipt in self.folder.receipts(plan.digest):  # one after the other: they may be many
            absent.discard(receipt.key)
            retreats.update(receipt.retreats)
            for row, column, *tile in receipt.tile_costs:
                macs[:, row, column] = tile
        check_unchanged(plan, facts)
        if absent:
            raise Damaged(
                f"{self.request.output} lacks {len(absent)} of {total} receipts, such as"
                f" {min(absent)}; give the same command again"
            )
        if retreats:
            self.notes.append(
                f"memory ran out for {', '.join(sorted(retreats))}: smaller batches were used,"
                " which may change values by 1 of 255"
            )
        self.pool.submit("draw", self.pool.share(plan), self.request.output).result()
        summary, budget = self.summary("done"), plan.policy["budget"]
        if (
            plan.policy["name"] == "budget"
            and not plan.policy["pooled"]
            and summary["cost_share"] > budget
        ):
            self.notes.append(
                f"{summary['cost_share']:.1%} of the dearest cost were computed for a budget of"
                f" {budget:.1%}: tiers that decide pixel by pixel found more to do here than their"
                " tables of efforts expect"
            )
        report.close(self.request.output, plan, macs, summary, facts.scaled_metadata, self.notes)
        if facts.needs_ingest and not self.request.keep_source:
            discard(self.folder.path / "source.zarr")

    def summary(self, status: str, error: str | None = None) -> dict[str, Any]:
        """What --json prints and the result table holds."""
        plan = self.plan
        tiles = Counter({tier.label: 0 for tier in plan.tiers} if plan else {})
        cost = 0.0
        for receipt in self.folder.receipts(plan.digest, 0) if plan else ():
            tiles.update(receipt.tiles)
            cost += receipt.cost
        total = len(shard_keys(plan)) if plan else 0
        share = None
        if plan is not None and cost:
            share = cost_share(plan, cost) if status == "done" else cost / full_cost(plan)
        seconds = {
            **self.seconds,
            "total": self.seconds["total"] or time.perf_counter() - self.began,
        }
        folder = self.folder.path
        files = {
            name: str(folder / file)
            for name, file in (
                ("preview", "preview.png"),
                ("routing", "routing.png"),
                ("tiles", "tiles.parquet"),
            )
        }
        return {
            "status": status,
            "output": self.request.output,
            "plan": plan.digest if plan else None,
            "shape": list(plan.hr_shape) if plan else None,
            "dtype": plan.dtype if plan else None,
            "scale": str(self.request.options.scale),
            "tiles": dict(tiles),
            "cost": cost,
            "cost_share": share,
            "seconds": {name: round(value, 3) for name, value in seconds.items()},
            "shards": {"total": total, "done_before": self.done_before, "written": self.written},
            "files": files,
            "notes": self.notes,
            "error": error,
        }


def shard_keys(plan: Plan) -> list[Key]:
    """All shards of a plan's output, full resolution first."""
    return list(store.shard_keys(plan.grid.hr_size, plan.grid.hr_shard))


def plan_only(
    request: Request, pool: Pool, progress: Progress = silent
) -> tuple[Plan, dict[str, Any]]:
    """The plan of a request and what it will take; nothing is written to the output.

    Beside outlook(), where a scout knows the tiers: "lost", dB against the dearest tier everywhere
    that the plan is predicted to lose, and "curve", the same for budgets: [share of the dearest
    cost, dB].
    """
    prepare.check_paths(request.source, request.output)
    run = Run(request, pool, progress)
    draft, facts = prepare.draft(
        request.source, request.options, request.max_memory, pool.device, pool.width
    )
    plan = run.stored(draft)
    if plan is None:
        with tempfile.TemporaryDirectory(prefix="tierscale-") as folder:
            plan, found = run.prepass(draft, facts, Path(folder))
    else:
        found = report.read_scores(run.folder.path, len(plan.tiers))
        run.done_before = sum(1 for _ in run.folder.receipts(plan.digest))
    run.plan = plan
    run.notes.extend(facts.notes)
    taken = needs.outlook(plan, facts, pool.width)
    predicted: dict[str, Any] = {"lost": None, "curve": None}
    if plan.scores == "scout" and plan.routes is not None:
        lost, curve = choosing.lost(plan, found, plan.routes), choosing.curve(plan, found, SHARES)
        run.notes.extend(choosing.better(plan, curve, taken["cost_share"], lost))
        predicted = {"lost": lost, "curve": curve}
    return plan, {**run.summary("done"), "files": {}, **taken, **predicted}
