"""Enlarge every image of a manifest on Ray.

`ray job submit … -- python jobs/upscale_dataset.py`, or run directly, or call upscale_dataset().
"""

import os
import sys
import threading
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

if __name__ == "__main__" and not __package__:
    # Run as a file, Python puts jobs/ on the path instead of the project's root.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import click
import pyarrow as pa

from tierscale.cluster.session import session, where_submitted
from tierscale.jobs.cli.exits import Draining, Ended, run_command
from tierscale.jobs.cli.options import answering, shared, to_options
from tierscale.jobs.cli.progress import Bar
from tierscale.jobs.cli.terminal import emit, say
from tierscale.pipeline.dataset.manifest import Manifest, Row
from tierscale.pipeline.dataset.output_paths import OutputPaths
from tierscale.pipeline.dataset.results import ResultRow, result_table, write_table
from tierscale.pipeline.dataset.runner import Enlarged, NotEnlarged, QueuedJob, enlarge, run_jobs
from tierscale.pipeline.dataset.sharing import shared_deadline, shared_routes
from tierscale.pipeline.errors import Interrupted, Refused
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.plan.policies import Budget, Deadline
from tierscale.pipeline.run.job import Controls, ImageJob
from tierscale.pipeline.run.tiers import load_tiers
from tierscale.pipeline.run.workers.pool import Pool
from tierscale.pipeline.storage.failures import storage_failure
from tierscale.pipeline.storage.path_policy import check_secrets, check_source, output_below
from tierscale.pipeline.storage.paths import join_path, normalize_root, place


@dataclass(frozen=True, slots=True)
class JobOptions:
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


def upscale_dataset(
    manifest: Manifest,
    options: JobOptions | Options | None = None,
    draining: Draining | None = None,
) -> pa.Table:
    """Enlarge all images of a manifest; one row of RESULT for each, in the manifest's order.

    A bad row or a failing image is listed and never stops the others. draining: once it was told to
    stop, shards in flight are finished and the rest left; unfinished images are then listed as
    failed, interrupted.
    """
    job = options if isinstance(options, JobOptions) else JobOptions(image=options or Options())
    stop = draining.stop if draining else threading.Event()
    jobs, rows = image_jobs(manifest, job)
    if jobs:
        with (
            session(job.ray, job.layout, job.image.device, job.workers) as pool,
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
    manifest: Manifest, job: JobOptions
) -> tuple[list[QueuedJob[int]], dict[int, ResultRow]]:
    """The jobs of a manifest with row numbers as keys, the highest priority first.

    Also the result rows, by number, of those that cannot be done.
    """
    refused = {
        number: ResultRow(number, manifest.sources.get(number, ""), None, "failed", error=text)
        for number, text in manifest.bad.items()
    }
    planner = _JobPlanner(manifest, job)
    jobs: list[QueuedJob[int]] = []
    for number, row in manifest.numbered():
        try:
            jobs.append(planner.job_of(number, row))
        except (Refused, ValueError, OSError) as error:
            refused[number] = ResultRow(number, row.source, row.output, "failed", error=str(error))
    priorities = {number: row.priority or 0.0 for number, row in manifest.numbered()}
    return sorted(jobs, key=lambda one: (-priorities[one.key], one.key)), refused


class _JobPlanner:
    """Makes the jobs of a manifest's rows; remembers what was checked before."""

    def __init__(self, manifest: Manifest, job: JobOptions) -> None:
        self.job = job
        self.paths = OutputPaths(str(manifest.root), job.output_root)
        # The job's own budget is that of all rows without a policy of their own.
        self._shared = job.image
        if isinstance(job.image.policy, Budget):
            shared = Budget(job.image.policy.share, shared=True)
            self._shared = job.image.altered(policy=shared)
        self._rows_of: dict[str, int] = {}
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
        if output in self._rows_of:
            raise Refused(
                f"row {number}, column output: {output} is the output of row"
                f" {self._rows_of[output]} too; name another one"
            )
        self._rows_of[output] = number
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


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--manifest",
    "manifest_path",
    required=True,
    help="Table of images: .parquet, .csv or .jsonl with a column source.",
)
@click.option(
    "--output-root",
    help=(
        "Folder for outputs of rows that name none. They lie below it as their sources lie below"
        " the manifest's folder; a source from elsewhere keeps its whole path."
    ),
)
@shared
@click.option(
    "--source-root",
    "source_roots",
    multiple=True,
    help="Folder below which all sources must lie (may be given several times).",
)
@click.option(
    "--results", help="Where the result table goes (default: results.parquet in the output root)."
)
@click.option(
    "--overwrite", is_flag=True, help="Replace outputs of ours that were planned otherwise."
)
@answering
def command(as_json: bool, debug: bool, **cli_args: Any) -> None:
    """Enlarge every image of a manifest. To resume after an interruption, run the same command.

    --budget is a share of the full tier's cost for all images together: easy ones leave more to
    hard ones. A budget in the manifest is for its image alone. --deadline is for all images
    together too; one in the manifest is for its image alone.
    """
    check_secrets(cli_args["manifest_path"])
    manifest = Manifest.read(cli_args["manifest_path"])
    root = cli_args["output_root"]
    path = cli_args["results"] or (join_path(root, "results.parquet") if root else None)
    if path is not None:
        try:
            place(path).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_failure(path, error) from error
    with Draining() as draining:
        table = upscale_dataset(manifest, to_job(cli_args), draining)
        if path is not None:
            write_table(path, table)
        _report(table, path, draining, as_json)


def to_job(cli_args: Mapping[str, Any]) -> JobOptions:
    """The job that the command's options ask for. Refused: a value that cannot be."""
    names = ("output_root", "layout", "workers", "max_memory", "overwrite", "source_roots")
    return JobOptions(
        to_options(dict(cli_args)),
        ray=where_submitted(cli_args["ray_address"]),
        output_bounds=os.getcwd(),
        **{name: cli_args[name] for name in names},
    )


def _report(table: pa.Table, path: str | None, draining: Draining, as_json: bool) -> None:
    """Say how the images ended; Ended: not all are enlarged. path: of the written table."""
    failed = [row for row in table.to_pylist() if row["status"] not in ("done", "skipped")]
    for row in failed:
        named = row["error"].startswith("row ")
        say(row["error"] if named else f"row {row['row']}: {row['error']}")
    total, done = table.num_rows, table.num_rows - len(failed)
    text = f"{done} of {total} images are enlarged, {len(failed)} failed"
    text += f"; the table is {path}" if path else ""
    counts = {"images": total, "done": done, "failed": len(failed), "results": path}
    status = "interrupted" if draining.code else "failed" if failed else "done"
    emit(as_json, {"status": status, **counts, "error": text if failed else None}, text)
    if draining.code:
        say("stopped; to resume, run the same command")
        raise Ended(draining.code)
    if failed:
        raise Ended(1)


def main(arguments: list[str] | None = None) -> None:
    """Run the job; exit codes as of the tierscale command."""
    run_command(command, sys.argv[1:] if arguments is None else arguments)


if __name__ == "__main__":
    main()
