"""From a job to a finished output: plan it, carry it out on a pool, close it.

The driver touches coordinates and receipts, never pixels.
"""

import tempfile
import time
from collections import Counter
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from tierscale.pipeline.errors import Interrupted
from tierscale.pipeline.formats.arrays.ingest import discard
from tierscale.pipeline.output import levels, report
from tierscale.pipeline.output.levels import Key
from tierscale.pipeline.output.pictures.tier_labels import write_tier_labels
from tierscale.pipeline.output.receipts import ReceiptSummary
from tierscale.pipeline.output.store import storage_errors
from tierscale.pipeline.output.summary import Summary
from tierscale.pipeline.plan.plan import Plan
from tierscale.pipeline.plan.policies import Budget
from tierscale.pipeline.plan.source import PixelSource
from tierscale.pipeline.routing.audit import loss_db
from tierscale.pipeline.routing.costs import cost_share, full_cost
from tierscale.pipeline.routing.routes import better_budget, curve
from tierscale.pipeline.run.draft import Inspection
from tierscale.pipeline.run.inspect import check_unchanged
from tierscale.pipeline.run.job import Controls, ImageJob, Timings
from tierscale.pipeline.run.planning import COPY, Planned, Planner, with_scores
from tierscale.pipeline.run.prescan import Progress, silent
from tierscale.pipeline.run.resources import outlook
from tierscale.pipeline.run.scoring.alternatives import alternatives
from tierscale.pipeline.run.shards.opinions import Attempt, Opinions, worst_of
from tierscale.pipeline.run.shards.queue import Chain, ShardQueue, Step
from tierscale.pipeline.run.shards.recheck import Recheck
from tierscale.pipeline.run.workers.pool import Handle, Pool
from tierscale.pipeline.run.workers.shard_tasks import (
    DrawPictures,
    EnlargeTiles,
    FinishShard,
    HalveShards,
)
from tierscale.pipeline.storage.lease import Lease
from tierscale.pipeline.storage.zarr_store import consolidate

# Budgets that a plan tells the quality of.
SHARES = (0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)


class Stopped(Interrupted):
    """A run was asked to stop and has drained. summary: how far it came."""

    def __init__(self, summary: Summary) -> None:
        super().__init__(f"stopped with {summary.written} shards written")
        self.summary = summary


def upscale_image(job: ImageJob, pool: Pool, controls: Controls | None = None) -> Summary:
    """Everything from the source to the closed output. Raises Refused, Damaged, Stopped."""
    controls, timings = controls or Controls(), Timings()
    planner = Planner(job, pool, controls, timings)
    try:
        inspection = planner.inspect()
        # Whatever is decided from what lies there is decided under the lease: another run may have
        # written it a moment ago.
        with Lease(planner.folder.path):
            planned = planner.plan(inspection)
            controls.on_plan(planned.plan)
            work = ImageWork(planner, planned.plan, planned.receipts)
            return work.carry_out(planned, inspection)
    except Stopped:
        raise
    except Interrupted:
        # Stopped before there was a plan.
        raise Stopped(_unplanned(job, timings)) from None


def _unplanned(job: ImageJob, timings: Timings) -> Summary:
    """How a run ended that was stopped before it had a plan."""
    return Summary(
        status="interrupted",
        output=job.output,
        plan=None,
        shape=None,
        dtype=None,
        scale=str(job.options.scale),
        family=None,
        kind=None,
        tiles={},
        cost=0.0,
        cost_share=None,
        seconds=timings.seconds,
        shards=0,
        done_before=0,
        written=0,
        notes=tuple(timings.notes),
    )


class ImageWork:
    """The shards of one planned image on their way.

    receipts: of the shards that are done; those of this run are added as they come.
    """

    def __init__(self, planner: Planner, plan: Plan, receipts: ReceiptSummary) -> None:
        self.job, self.pool, self.folder = planner.job, planner.pool, planner.folder
        self.controls, self.timings = planner.controls, planner.timings
        self.plan, self.receipts = plan, receipts
        self.opinions = Opinions(plan, self.pool, self.job.output)
        self.handle: Handle[Plan] = self.pool.put(plan)
        self.done_before = 0
        self.written = 0

    def carry_out(self, planned: Planned, inspection: Inspection) -> Summary:
        """Make what is missing and close the output; the summary. Raises Damaged, Stopped."""
        try:
            self._write_shards(planned)
            self._write_pyramid(planned.recheck)
        except Interrupted:
            raise Stopped(self.summary("interrupted")) from None
        self.timings.finish()
        return self._close(inspection, planned.recheck)

    def _write_shards(self, planned: Planned) -> None:
        began = time.perf_counter()
        chain = partial(self._chain, planned.pixels)
        seconds = self._fill("enlarge", 0, chain, planned.recheck)
        wall = time.perf_counter() - began
        # Stages overlap between workers; their share of the wall time is that of the workers' own
        # seconds.
        enlarging = seconds["enlarge"]
        stitching = sum(seconds.values()) - enlarging
        if enlarging + stitching > 0:
            self.timings.add("enlarge", wall * enlarging / (enlarging + stitching))
            self.timings.add("stitch", wall * stitching / (enlarging + stitching))

    def _chain(self, pixels: PixelSource, key: Key, attempt: Attempt) -> tuple[Step, ...]:
        """The tasks that make one shard, each taking what the one before made."""
        plan, shard, output = self.plan, (key[1], key[2]), self.job.output
        # To lay out a shard takes milliseconds, which a driver with many workers has not: it is
        # done where it must be.
        tiers = {work.tier for work in plan.works(shard)} if self.pool.split else set()
        finish = Step(
            "full" if tiers == {plan.full} else "light",
            lambda pieces: FinishShard(
                self.handle, pixels, output, shard, pieces, attempt.rule, attempt.seen
            ),
        )
        if plan.full not in tiers or len(tiers) == 1:
            return (finish,)
        first = Step("full", lambda _: EnlargeTiles(self.handle, pixels, shard, (plan.full,)))
        return first, finish

    def _write_pyramid(self, recheck: Recheck) -> None:
        def chain(key: Key, attempt: Attempt) -> tuple[Step, ...]:
            level, *shard = key
            task = HalveShards(self.handle, self.job.output, level, (shard[0], shard[1]))
            return (Step("light", lambda _: task),)

        with self.timings.stage("pyramid"):
            for level in range(1, len(levels.level_sizes(self.plan.grid.hr_size))):
                self._fill("pyramid", level, chain, recheck)

    def _fill(self, stage: str, level: int, chain: Chain, recheck: Recheck) -> Counter[str]:
        """Get a receipt for every shard of a level that has none; the seconds taken by stage.

        Interrupted: stopped before all were made.
        """
        keys = [key for key in shard_keys(self.plan) if key[0] == level]
        missing = [key for key in keys if key not in self.receipts]
        self.done_before += len(keys) - len(missing)
        seconds: Counter[str] = Counter()
        self.controls.progress(stage, len(keys) - len(missing), len(keys))
        shards = ShardQueue(missing, chain, self.opinions, self.controls.stop)
        done = len(keys) - len(missing)
        for receipt in shards.run(self.pool):
            new = receipt.key not in self.receipts
            done, self.written = done + new, self.written + new
            seconds.update(receipt.seconds)
            self.receipts.add(receipt)
            recheck.written(receipt.key)
            self.controls.progress(stage, done, len(keys))
        if any(key not in self.receipts for key in missing):
            raise Interrupted
        return seconds

    def _close(self, inspection: Inspection, recheck: Recheck) -> Summary:
        """Check that all is there, and write what is left beside the output."""
        plan, output = self.plan, self.job.output
        check_unchanged(plan, inspection.source)
        recheck.close(self.receipts)
        self.timings.notes.extend(self.opinions.notes())
        retreats = self.receipts.retreats
        if retreats:
            self.timings.notes.append(
                f"memory ran out for {', '.join(sorted(retreats))}: smaller batches were used,"
                " which may change values by 1 of 255"
            )
        self.pool.submit(DrawPictures(self.handle, output)).result()
        summary = self.summary("done")
        over = _over_budget(plan, summary)
        self.timings.notes.extend(over)
        summary = replace(summary, notes=tuple(self.timings.notes))
        metadata = inspection.source.scaled_metadata
        # What an earlier version finished is left as it is.
        if self.written or not self.folder.closed():
            write_tier_labels(output, plan, metadata)
        if self.job.consolidated:
            with storage_errors(output):
                consolidate(output)
        report.close(output, plan, self.receipts, summary.to_json(), metadata)
        if inspection.source.needs_ingest and not self.job.keep_source:
            discard(self.folder.path / COPY)
        return summary

    def summary(self, status: str) -> Summary:
        """What there is to say of the run by now."""
        plan, cost = self.plan, self.receipts.cost
        tiles = {tier.label: self.receipts.tiles[tier.label] for tier in plan.tiers}
        share = None
        if cost:
            share = cost_share(plan, cost) if status == "done" else cost / full_cost(plan)
        return Summary(
            status=status,
            output=self.job.output,
            plan=plan.digest,
            shape=plan.hr_shape,
            dtype=plan.dtype,
            scale=str(plan.scale),
            family=plan.family,
            kind=None if plan.kind is None else plan.kind.to_json(),
            tiles=tiles,
            cost=cost,
            cost_share=share,
            seconds=self.timings.seconds,
            shards=len(shard_keys(plan)),
            done_before=self.done_before,
            written=self.written,
            notes=tuple(self.timings.notes),
            audit=plan.audit,
            fidelity=worst_of(plan, self.receipts.fidelity),
            precision=plan.precision,
        )


def _over_budget(plan: Plan, summary: Summary) -> list[str]:
    """A note where tiers that decide pixel by pixel took more than their budget."""
    policy, share = plan.policy, summary.cost_share
    if not isinstance(policy, Budget) or policy.shared or share is None or share <= policy.share:
        return []
    return [
        f"{share:.1%} of the full cost were computed for a budget of {policy.share:.1%}: tiers that"
        " decide pixel by pixel found more to do here than their tables of efforts expect"
    ]


def shard_keys(plan: Plan) -> list[Key]:
    """All shards of a plan's output, full resolution first."""
    return list(levels.shard_keys(plan.grid.hr_size, plan.grid.hr_shard))


def plan_only(
    job: ImageJob, pool: Pool, progress: Progress = silent
) -> tuple[Plan, dict[str, Any]]:
    """The plan of a job and what it will take; nothing is written to the output.

    The JSON object holds the summary, the outlook and, where predicted errors are errors, "lost"
    (dB below the full tier everywhere that the plan is predicted to lose), "curve" (the same for
    budgets: [share of the full cost, dB]) and "alternatives" (what other policies would do).
    """
    timings = Timings()
    planner = Planner(job, pool, Controls(progress), timings)
    inspection = planner.inspect()
    stored = planner.stored(inspection)
    if stored is None:
        with tempfile.TemporaryDirectory(prefix="tierscale-") as folder:
            plan, scored = planner.prescan(inspection, Path(folder))
    else:
        plan, scored = stored, with_scores(stored, planner.folder.path)
    work = ImageWork(planner, plan, planner.folder.summary(plan))
    work.done_before = 0 if stored is None else len(work.receipts)
    ahead = outlook(plan, inspection.source, pool.width, job.keep_source)
    predicted: dict[str, Any] = {"lost": None, "curve": None, "alternatives": []}
    if plan.knows_errors:
        loss, points = loss_db(plan, scored.scores, plan.routes), curve(plan, scored.scores, SHARES)
        timings.notes.extend(better_budget(plan, points, ahead.cost_share, loss))
        others = [asdict(one) for one in alternatives(plan, scored, ahead)]
        predicted = {"lost": loss, "curve": points, "alternatives": others}
    content = {**work.summary("done").to_json(), "files": {}}
    return plan, {**content, **ahead.to_json(), **predicted}
