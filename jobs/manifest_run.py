"""Enlarge all images of a manifest, several at a time, in one session of workers."""

import threading
from collections.abc import Collection, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

import pyarrow as pa

from tierscale.cluster.session import session, where_submitted
from tierscale.jobs.cli.exits import Draining
from tierscale.jobs.cli.progress import Bar
from tierscale.pipeline.dataset.manifest import Manifest, Row
from tierscale.pipeline.dataset.output_paths import OutputPaths, TakenOutputs
from tierscale.pipeline.dataset.results import ResultRow, result_table
from tierscale.pipeline.dataset.runner import Enlarged, NotEnlarged, QueuedJob, enlarge, run_jobs
from tierscale.pipeline.dataset.sharing import shared_deadline, shared_routes
from tierscale.pipeline.errors import Interrupted, Refused
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.plan.policies import Budget, Deadline
from tierscale.pipeline.run.job import Controls, ImageJob
from tierscale.pipeline.run.tiers import load_tiers
from tierscale.pipeline.run.workers.pool import Pool
from tierscale.pipeline.storage.path_policy import check_lasting, check_source, output_below
from tierscale.pipeline.storage.paths import normalize_root


@dataclass(frozen=True, slots=True)
class ManifestJob:
    """How a manifest is enlarged.

    image: what rows do not say themselves; its budget and its deadline are those of all rows
    together. output_root: where rows without an output go, below it as their source lies below the
    manifest's root. output_bounds: folder below which outputs must lie where there is no
    output_root. source_roots: folders below which sources must lie; none: anywhere. ray: "local",
    "none" or an address. max_memory: bytes. quiet: no progress.
    """

    image: Options = field(default_factory=Options)
    output_root: str | None = None
    ray: str = "local"
    layout: str = "auto"
    workers: int | None = None
    max_memory: int | None = None
    overwrite: bool = False
    quiet: bool = False
    output_bounds: str | None = None
    source_roots: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "source_roots", tuple(map(normalize_root, self.source_roots)))


def run_manifest(
    manifest: Manifest, job: ManifestJob, draining: Draining | None = None
) -> pa.Table:
    """Enlarge all images of a manifest; one row of RESULT for each, in the manifest's order.

    A bad row or a failing image is listed and never stops the others. draining: after a signal,
    shards in flight are finished and the rest is left; unfinished images are then listed as failed,
    interrupted. Refused: the workers cannot be started, or Ray would delete the outputs.
    """
    if job.output_root is not None:
        check_lasting(job.output_root, "the output root")
    stop = draining.stop if draining else threading.Event()
    jobs, rows = image_jobs(manifest, job)
    if jobs:
        with (
            session(where_submitted(job.ray), job.layout, job.image.device, job.workers) as pool,
            Bar(job.quiet) as bar,
        ):
            if draining:
                draining.arm()
            sharing = {number for number, row in manifest.numbered() if row.deadline is None}
            rows |= _run_all(jobs, sharing, pool, bar, stop)
    for one in jobs:
        rows.setdefault(one.key, ResultRow.of(one, NotEnlarged.of(Interrupted())))
    return result_table(rows.values())


def image_jobs(
    manifest: Manifest, job: ManifestJob
) -> tuple[list[QueuedJob[int]], dict[int, ResultRow]]:
    """The jobs of a manifest with row numbers as keys, the highest priority first.

    Also the result rows, by number, of those that cannot be done.
    """
    refused = {
        number: ResultRow(number, manifest.sources.get(number, ""), None, "failed", error=text)
        for number, text in manifest.bad.items()
    }
    builder = _JobBuilder(manifest, job)
    jobs: list[QueuedJob[int]] = []
    for number, row in manifest.numbered():
        try:
            jobs.append(builder.job_of(number, row))
        except (Refused, ValueError, OSError) as error:
            refused[number] = ResultRow(number, row.source, row.output, "failed", error=str(error))
    priorities = {number: row.priority or 0.0 for number, row in manifest.numbered()}
    return sorted(jobs, key=lambda one: (-priorities[one.key], one.key)), refused


class _JobBuilder:
    """Makes the jobs of a manifest's rows; remembers what was checked before."""

    def __init__(self, manifest: Manifest, job: ManifestJob) -> None:
        self.job = job
        self.paths = OutputPaths(str(manifest.root), job.output_root)
        # The job's own budget is that of all rows without a policy of their own.
        self._shared = job.image
        if isinstance(job.image.policy, Budget):
            shared = Budget(job.image.policy.share, shared=True)
            self._shared = job.image.altered(policy=shared)
        self._taken = TakenOutputs()
        self._folders: dict[str, str] = {}
        # Rows of a manifest have few different options.
        self._options: dict[Row, Options] = {}

    def job_of(self, number: int, row: Row) -> QueuedJob[int]:
        """The job of a row. Refused, ValueError, OSError: it cannot be done."""
        job = self.job
        check_source(row.source, job.source_roots)
        output = self.paths.of(row.source, row.output)
        if (bounds := job.output_root or job.output_bounds) is not None:
            output = output_below(output, bounds, self._folders)
        if (other := self._taken.take(output, number)) is not None:
            raise Refused(
                f"row {number}, column output: {output} is the output of row {other} too, or lies"
                " in it; name another one"
            )
        options = self._options_of(number, row)
        image = ImageJob(row.source, output, options, job.max_memory, job.overwrite)
        return QueuedJob(number, image)

    def _options_of(self, number: int, row: Row) -> Options:
        """Options of a row whose tiers exist at their scale. Refused: some do not."""
        key = replace(row, source="", output=None, priority=None)
        if key not in self._options:
            options = row.options(self._shared)
            try:
                load_tiers(options.tier_labels, options.scale)
            except Refused as error:
                raise Refused(f"row {number}, column tiers: {error}") from error
            self._options[key] = options
        return self._options[key]


def _run_all(
    jobs: Sequence[QueuedJob[int]],
    sharing: Collection[int],
    pool: Pool,
    bar: Bar,
    stop: threading.Event,
) -> dict[int, ResultRow]:
    """Enlarge all images, several at a time; those that share a budget are scored first.

    sharing: numbers of the rows that name no deadline, and share that of the job if it has one.
    """
    rows: dict[int, ResultRow] = {}
    by_number = {one.key: one for one in jobs}

    def failed(number: int, job: ImageJob, error: Exception) -> None:
        rows[number] = ResultRow.of(by_number[number], NotEnlarged.of(error))

    images = [(one.key, one.image) for one in jobs]
    routes = shared_routes(images, pool, Controls(bar, stop), failed)
    left = [one for one in jobs if one.key not in rows]
    timed = {
        one.key: one.image
        for one in left
        if one.key in sharing and isinstance(one.image.options.policy, Deadline)
    }
    deadline = shared_deadline(list(timed.items()), pool.width)

    def perform(one: QueuedJob[int]) -> Enlarged:
        limit = deadline.limit(one.key) if deadline and one.key in timed else None
        controls = Controls(stop=stop, routes=routes.get(one.key), time_limit=limit)
        try:
            return enlarge(one.image, pool, controls)
        finally:
            if deadline:
                deadline.finished(one.key)

    before = len(rows)
    bar("images", before, len(jobs))
    with closing(run_jobs(left, perform, pool.width + 1, stop)) as outcomes:
        for done, (number, outcome) in enumerate(outcomes, start=before + 1):
            rows[number] = ResultRow.of(by_number[number], outcome)
            bar("images", done, len(jobs))
    return rows
