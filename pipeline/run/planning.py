"""The plan that an output is made by: the stored one where it will do, else a new one."""

from collections.abc import Callable
from concurrent.futures import wait
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from tierscale.pipeline.errors import Refused
from tierscale.pipeline.formats.arrays.ingest import rows_done
from tierscale.pipeline.output import ownership, store, tile_table
from tierscale.pipeline.output.levels import StoreLayout, shard_keys
from tierscale.pipeline.output.ome import level_attributes, ome_attributes, own_attributes
from tierscale.pipeline.output.receipts import Folder, ReceiptSummary
from tierscale.pipeline.plan.begun import kept_options, other_bytes
from tierscale.pipeline.plan.differences import differences, outdated
from tierscale.pipeline.plan.evidence import Evidence
from tierscale.pipeline.plan.plan import Draft, Plan, ScoredPlan
from tierscale.pipeline.plan.policies import Deadline
from tierscale.pipeline.plan.source import PixelSource
from tierscale.pipeline.plan.stored import draft_fields, freeze
from tierscale.pipeline.routing.audit import audit_of
from tierscale.pipeline.routing.routes import TimeLimit, remarks, route
from tierscale.pipeline.run.draft import Inspection, check_paths, in_family, inspect_file
from tierscale.pipeline.run.family import decided, sentence
from tierscale.pipeline.run.job import Controls, ImageJob, Timings
from tierscale.pipeline.run.prescan import Prescan
from tierscale.pipeline.run.resources import check_disk, check_memory
from tierscale.pipeline.run.scoring import kept_scores
from tierscale.pipeline.run.shards.recheck import Recheck
from tierscale.pipeline.run.tiers import kept_weights, missing_weights
from tierscale.pipeline.run.workers.pool import Pool
from tierscale.pipeline.run.workers.prescan_tasks import IngestSource
from tierscale.pipeline.storage.atomic import as_json, write_files
from tierscale.pipeline.storage.failures import storage_failure
from tierscale.pipeline.storage.paths import Place, place, remove_tree

# The ingested copy of a source, in the folder beside the output.
COPY = "source.zarr"


@dataclass(frozen=True, slots=True)
class Planned:
    """An image that can be carried out.

    pixels: where workers read them. receipts: of the shards that are done; they are read once.
    recheck: what has looked at these shards, and looks at all of them at the end.
    """

    plan: Plan
    pixels: PixelSource
    receipts: ReceiptSummary
    recheck: Recheck


def with_scores(plan: Plan, folder: Place) -> ScoredPlan:
    """A stored plan with the scores of its tile table."""
    tiers = len(plan.tiers)
    # What a scout predicted has no spread.
    exact = Evidence("card", "clean", (1.0,) * tiers, (1.0,) * tiers)
    return ScoredPlan(
        **draft_fields(plan),
        value_range=plan.value_range,
        settings=plan.settings,
        scores=tile_table.read_scores(folder, tiers),
        evidence=plan.evidence or exact,
    )


class Planner:
    """Finds or makes the plan of one job. What it does on the way is timed and noted."""

    def __init__(self, job: ImageJob, pool: Pool, controls: Controls, timings: Timings) -> None:
        self.job, self.pool, self.controls, self.timings = job, pool, controls, timings
        self.folder = Folder(job.output)
        # Digest of the stored plan when the image was inspected.
        self._seen: str | None = None

    def inspect(self) -> Inspection:
        """The draft of the job, and the plan that its output was begun with, if that will do.

        Refused: it cannot work, does not fit in memory, or the output was planned otherwise.
        """
        job, pool = self.job, self.pool
        check_paths(job.source, job.output)
        inspection = self._inspect()
        if inspection.begun is None:
            check_memory(inspection.draft, inspection.source, job.max_memory, pool.width)
        else:
            self.timings.notes.extend(kept_options(job.options, inspection.begun))
            self.timings.notes.extend(kept_weights(inspection.begun.tiers))
        self.timings.notes.extend(inspection.source.notes)
        return inspection

    def _inspect(self) -> Inspection:
        job, pool = self.job, self.pool
        inspect = partial(inspect_file, job.source, job.options, job.max_memory, pool.hardware)
        begun = self._read_plan()
        self._seen = None if begun is None else begun.digest
        if begun is None:
            return inspect()
        # To overwrite, a plan must be what would be planned now, by whatever default.
        inspection = inspect() if job.overwrite else inspect(begun)
        unlike = self._differences(begun, inspection.draft)
        if not unlike:
            return replace(inspection, begun=begun)
        if not (job.overwrite or job.known or (job.renew and outdated(begun, inspection.draft))):
            raise Refused(
                f"{job.output} was begun with another plan ({'; '.join(unlike)}); repeat the"
                " earlier options to resume, choose another output, or give --overwrite to start"
                " over"
            )
        return inspection if job.overwrite else inspect()

    def _differences(self, begun: Plan, draft: Draft) -> list[str]:
        """What a stored plan and a draft disagree in, as far as it matters."""
        unlike = differences(begun, draft)
        if unlike and not self.job.overwrite and self._finished(begun):
            return differences(begun, draft, finished=True)
        if self.job.overwrite and begun.bytes_version != draft.bytes_version:
            unlike.append(f"bytes_version {begun.bytes_version}, now {draft.bytes_version}")
        return unlike

    def _finished(self, plan: Plan) -> bool:
        """Whether the output is there and every shard has a receipt; none is read."""
        if not place(self.job.output).exists():
            return False
        keys = shard_keys(plan.grid.hr_size, plan.grid.hr_shard)
        return self.folder.receipt_keys().issuperset(keys)

    def _read_plan(self) -> Plan | None:
        """The stored plan; None: there is none, or none that can be used and may be replaced."""
        try:
            return self.folder.plan() if self.folder.exists() else None
        except Refused:
            if self.job.overwrite or self.job.known:
                return None
            raise
        except OSError as error:
            raise storage_failure(self.job.output, error) from error

    def stored(self, inspection: Inspection) -> Plan | None:
        """The plan to go on with; None: there is none, or it will be replaced.

        Refused: what lies there is not our output, or another run began it a moment ago.
        """
        output = self.job.output
        now = self._read_plan()
        if (None if now is None else now.digest) != self._seen:
            raise Refused(
                f"another run began {output} anew while this one started; run the same command"
                " again"
            )
        if inspection.begun is None:
            ours = self.folder.exists() or self.job.overwrite or self.job.known
            if not ours and place(output).exists():
                raise Refused(
                    f"{output} exists and was not made by tierscale; choose another output, or move"
                    " it away"
                )
            ownership.check_ours(output)
        return inspection.begun

    def plan(self, inspection: Inspection) -> Planned:
        """The plan, with its output made and its source ready to be read."""
        stored = self.stored(inspection)
        plan = stored or self._new(inspection)
        # First of all: where the output is gone, its receipts go too, and then its shards need the
        # ingested copy again.
        self._make_output(plan, inspection)
        recheck = Recheck(self.folder, plan, self.pool, self.controls)
        receipts, lost = recheck.sound()
        if lost:
            self.timings.notes.append(
                f"{lost} shards were not on the disk as they were written, as after a power"
                " failure; they are made again"
            )
        keys = shard_keys(plan.grid.hr_size, plan.grid.hr_shard)
        levels = [key[0] for key in keys if key not in receipts]
        if stored is not None:
            self.timings.notes.extend((*sentence(plan), *other_bytes(plan, len(levels))))
        # Smaller levels are made of what is written.
        if stored is not None and 0 in levels:
            self._check_can_go_on(plan, inspection)
            if inspection.source.needs_ingest:
                self.ingest(inspection, self.folder.path)
        return Planned(plan, self.pixels(inspection, self.folder.path), receipts, recheck)

    def _check_can_go_on(self, plan: Plan, inspection: Inspection) -> None:
        """Refuse a stored plan of another device, or one that does not fit or lacks its weights."""
        job = self.job
        if reason := self.pool.hardware.lacks(plan.device, plan.precision):
            raise Refused(f"{job.output} was begun {reason}")
        check_memory(plan, inspection.source, job.max_memory, self.pool.width)
        if missing := missing_weights(plan.tiers):
            raise Refused(
                f"{job.output} was begun by tierscale {plan.code} with {missing}, which are not"
                " here; install that version or a newer one, or give --overwrite to start over"
            )

    def _new(self, inspection: Inspection) -> Plan:
        """A new plan, stored. An output that it replaces stays until nothing can refuse it."""
        check_disk(inspection.draft, self.job.output)
        plan, scored = self.prescan(inspection, self.folder.path)
        keep = ("lease.json", COPY) if inspection.source.needs_ingest else ("lease.json",)
        ownership.remove(self.job.output, keep=keep)
        metadata = inspection.source.scaled_metadata
        write_files(
            {
                self.folder.path / tile_table.NAME: tile_table.to_parquet(plan, scored.scores),
                self.folder.path / "facts.json": as_json(metadata.to_json()),
            }
        )
        self.folder.write_plan(plan)
        return plan

    def pixels(self, inspection: Inspection, folder: Place | Path) -> PixelSource:
        """Where workers read pixels: the source itself, or its ingested copy in `folder`."""
        source = inspection.draft.source
        if inspection.source.needs_ingest:
            return source.copied_to(str(folder / COPY))
        return source.in_place

    def prescan(self, inspection: Inspection, folder: Place | Path) -> tuple[Plan, ScoredPlan]:
        """Ingest if need be, run the prescan, and choose the tiers of its tiles."""
        scored = self.scored(inspection, folder)
        with self.timings.stage("score"):
            routes = self._routes(scored, self.pixels(inspection, folder))
            plan = freeze(scored, routes, audit_of(scored, routes))
        self.timings.notes.extend((*sentence(plan), *remarks(plan)))
        return plan, scored

    def scored(self, inspection: Inspection, folder: Place | Path) -> ScoredPlan:
        """Ingest if need be, and run the prescan unless its scores were saved earlier."""
        if inspection.source.needs_ingest:
            self.ingest(inspection, folder)
        with self.timings.stage("score"):
            scored = self.kept(inspection, folder)
            if scored is None:
                prescan = self._prescan(self.pixels(inspection, folder))
                decision = decided(inspection, self.job.options, prescan)
                self.timings.notes.extend(decision.choices)
                scored = prescan.scan(decision.draft, decision.scorer)
            return scored

    def kept(self, inspection: Inspection, folder: Place | Path) -> ScoredPlan | None:
        """What an earlier look at the image found, if it was kept."""
        known = kept_scores.load_family(folder) if inspection.draft.family == "auto" else None
        if known is not None:
            inspection = in_family(inspection, self.job.options, *known)
        return kept_scores.load(folder, inspection.draft)

    def _prescan(self, pixels: PixelSource) -> Prescan:
        return Prescan(self.pool, pixels, self.controls.progress, self.controls.stop)

    def _routes(self, scored: ScoredPlan, pixels: PixelSource) -> np.ndarray:
        """The tier of every tile, (rows, columns)."""
        if self.controls.routes is not None:
            return self.controls.routes
        if not isinstance(scored.policy, Deadline):
            return route(scored)
        seconds = scored.policy.seconds
        own = TimeLimit(lambda: seconds - self.timings.elapsed(), self.pool.width)
        limit = self.controls.time_limit or own
        return route(scored, self._prescan(pixels).time(scored, limit))

    def ingest(self, inspection: Inspection, folder: Place | Path) -> None:
        """Copy a source that cannot be read by windows into `folder`."""
        target, source = str(folder / COPY), inspection.source
        progress: Callable[[str, int, int], None] = self.controls.progress
        with self.timings.stage("ingest"):
            task = IngestSource(source.uri, source.selection, target, self.job.max_memory)
            future = self.pool.submit(task)
            while not wait([future], timeout=1).done:
                progress("ingest", *rows_done(target))
            future.result()
            _, total = rows_done(target)
            progress("ingest", total, total)

    def _make_output(self, plan: Plan, inspection: Inspection) -> None:
        """Make the empty arrays, unless an earlier run did. Refused: something else is there."""
        output, layout = self.job.output, StoreLayout.of(plan)
        if ownership.matches_plan(output, plan.digest, len(layout.levels)):
            return
        # Receipts go first: an empty array must never stand beside receipts that say it is full.
        remove_tree(self.folder.path / "receipts")
        window = plan.value_range.low, plan.value_range.high
        name = Path(self.job.source).name
        metadata = inspection.source.scaled_metadata
        attributes = ome_attributes(name, layout, metadata, plan.scale, window)
        of_levels = level_attributes(layout, metadata)
        store.create(output, layout, {**attributes, **own_attributes(plan, metadata)}, of_levels)
