"""Enlarge every image of a manifest on Ray.

`ray job submit … -- python jobs/upscale_dataset.py`, or run directly, or call upscale_dataset().
"""

import os
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

if __name__ == "__main__" and not __package__:
    # Run as a file, Python puts jobs/ on the path instead of the project's root.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import click
import pyarrow as pa
import pyarrow.parquet as pq

from tierscale.cluster.session import session
from tierscale.jobs.cli.ending import Draining, Ended, emit, run_command, say
from tierscale.jobs.cli.options import answering, shared, to_options
from tierscale.jobs.cli.progress import Bar
from tierscale.jobs.sharing import Todo, over, pooled_routes, watch_of
from tierscale.pipeline.dataset.manifest import Manifest, Row
from tierscale.pipeline.errors import Damaged, Interrupted, Refused
from tierscale.pipeline.plan.plan import Options
from tierscale.pipeline.run.draft import load_tiers
from tierscale.pipeline.run.pool import Pool
from tierscale.pipeline.run.run import Request, Run
from tierscale.pipeline.run.tasks import Quarantined
from tierscale.pipeline.storage.atomic import write_bytes
from tierscale.pipeline.storage.failures import storage_failure
from tierscale.pipeline.storage.path_policy import check_secrets, check_source, output_below, public
from tierscale.pipeline.storage.paths import join_path, normalize_root, place

RESULT = pa.schema(
    [
        ("row", pa.int32()),
        ("source", pa.string()),
        ("output", pa.string()),
        ("status", pa.string()),
        ("height", pa.int64()),
        ("width", pa.int64()),
        ("channels", pa.int32()),
        ("tiles", pa.map_(pa.string(), pa.int64())),
        ("cost", pa.float64()),
        ("cost_share", pa.float64()),
        ("seconds", pa.float64()),
        ("error", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class JobOptions:
    """How a manifest is enlarged. image: what rows do not say themselves; its budget and its
    deadline are those of all rows together.

    output_root: where rows without an output go, below it as their source lies below the manifest's
    root. output_bounds: folder below which outputs must lie where there is no output_root.
    source_roots: folders below which sources must lie; none: anywhere. ray: "local", "none" or an
    address. max_memory: bytes. quiet: no progress.
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
    halt = draining.stop if draining else threading.Event()
    results = {
        number: _row(number, manifest.sources.get(number, ""), None, "failed", error=text)
        for number, text in manifest.bad.items()
    }
    todo = _requests(manifest, job, results)
    if todo:
        with (
            session(job.ray, job.layout, job.image.device, job.workers) as pool,
            Bar(job.quiet) as bar,
        ):
            if draining:
                draining.arm()
            _run_all(todo, pool, bar, halt, results)
    for number, request in todo:
        if number not in results:
            results[number] = _row(
                number,
                request.source,
                request.output,
                "failed",
                error="interrupted; the same command again goes on",
            )
    return pa.Table.from_pylist([results[number] for number in sorted(results)], schema=RESULT)


def _requests(manifest: Manifest, job: JobOptions, results: dict[int, dict[str, Any]]) -> Todo:
    """What there is to do, the highest priority first; rows that cannot be done are put into the
    results.
    """
    found: list[tuple[float, int, Request]] = []
    taken: dict[str, int] = {}
    known: dict[str, str] = {}
    images: dict[tuple[Any, ...], Options] = {}  # rows of a manifest have few different ones
    for number, row in enumerate(manifest.rows, start=1):
        if row is None:
            continue
        try:
            check_source(row.source, job.source_roots)
            output = _output(row, job.output_root, manifest.root)
            if (bounds := job.output_root or job.output_bounds) is not None:
                output = output_below(output, bounds, known)
            if output in taken:
                raise Refused(
                    f"row {number}, column output: {output} is the output of row"
                    f" {taken[output]} too"
                )
            taken[output] = number
            asked = (row.scale, row.tiers, row.policy, row.budget, row.threshold)
            if asked not in images:
                images[asked] = _checked(
                    number,
                    replace(
                        row.options(job.image),
                        pooled=job.image.policy == "budget" and asked[2:] == (None,) * 3,
                    ),
                )
            request = Request(row.source, output, images[asked], job.max_memory, job.overwrite)
            found.append((-(row.priority or 0.0), number, request))
        except (Refused, ValueError, OSError) as error:
            results[number] = _row(number, row.source, row.output, "failed", error=str(error))
    return [(number, request) for _, number, request in sorted(found, key=lambda entry: entry[:2])]


def _checked(number: int, options: Options) -> Options:
    """Options of a row whose tiers there are at their scale. Refused: some are not."""
    try:
        load_tiers(options.tier_labels, options.scale)
    except Refused as error:
        raise Refused(f"row {number}, column tiers: {error}") from error
    return options


def _output(row: Row, root: str | None, base: Path) -> str:
    """Where a row's output goes. It depends on this row and the manifest's folder `base` alone:
    other rows never move it.
    """
    if row.output is not None:
        return (
            row.output
            if root is None or "://" in row.output or Path(row.output).is_absolute()
            else join_path(root, row.output)
        )
    if root is None:
        raise Refused("column output is empty and there is no --output-root")
    name, base = Path(row.source.rstrip("/")), base.resolve()
    if "://" in row.source:
        folder = Path(
            *(
                part
                for part in Path(row.source.split("://", 1)[1]).parent.parts
                if part not in ("/", "..")
            )
        )
    else:
        folder = name.parent.resolve()
        # A source outside the base keeps its whole path, so that it never meets another one.
        folder = folder.relative_to(base if folder.is_relative_to(base) else folder.anchor)
    return join_path(root, str(folder / f"{name.name}.zarr"))


def _run_all(
    todo: Todo, pool: Pool, bar: Bar, stop: threading.Event, results: dict[int, dict[str, Any]]
) -> None:
    """Enlarge all images, several at a time; those that share a budget are looked at first."""

    def failed(number: int, request: Request, error: Exception) -> None:
        results[number] = _failure(number, request, error)

    routes = pooled_routes(todo, pool, bar, stop, failed)
    left = [(number, request) for number, request in todo if number not in results]
    seconds = next(
        (request.options.deadline for _, request in left if request.options.policy == "deadline"),
        None,
    )
    watch = None if seconds is None else watch_of(left, seconds, pool.width)

    def one(number: int, request: Request) -> dict[str, Any]:
        clock = watch.clock(number) if watch and request.options.policy == "deadline" else None
        try:
            return _one(
                number,
                request,
                Run(request, pool, stop=stop, routes=routes.get(number), clock=clock),
            )
        finally:
            if watch:
                watch.finished(number)

    before = len(todo) - len(left)
    bar("images", before, len(todo))
    for done, (number, result) in enumerate(over(left, pool.width + 1, stop, one), start=1):
        results[number] = result
        bar("images", before + done, len(todo))


def _one(number: int, request: Request, run: Run) -> dict[str, Any]:
    """One image from start to end; its row of the table."""
    try:
        summary = run.carry_out()
    except (
        Exception
    ) as error:  # one image's fault must never stop the others; its row says what happened
        return _failure(number, request, error)
    return _row(
        number, request.source, request.output, "done" if run.written else "skipped", summary
    )


def _failure(number: int, request: Request, error: Exception) -> dict[str, Any]:
    """The row of an image that was not enlarged."""
    status, text = "failed", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    if isinstance(error, Interrupted):
        text = "interrupted; the same command again goes on"
    elif isinstance(error, Refused | Damaged):
        status, text = "quarantined" if isinstance(error, Quarantined) else "failed", str(error)
    return _row(number, request.source, request.output, status, error=text)


def _row(
    number: int,
    source: str,
    output: str | None,
    status: str,
    summary: Mapping[str, Any] | None = None,
    error: str | None = None,
) -> dict[str, Any]:
    made = summary or {}
    shape = made.get("shape") or (None, None, None)
    return {
        "row": number,
        "source": public(source),
        "output": None if output is None else public(output),
        "status": status,
        "channels": shape[0],
        "height": shape[1],
        "width": shape[2],
        "tiles": list((made.get("tiles") or {}).items()),
        "cost": made.get("cost"),
        "cost_share": made.get("cost_share"),
        "seconds": (made.get("seconds") or {}).get("total"),
        "error": error,
    }


def write_table(path: str, table: pa.Table) -> None:
    """Write the result table whole or not at all."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    write_bytes(place(path), sink.getvalue().to_pybytes())


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
def command(
    manifest_path: str,
    output_root: str | None,
    source_roots: tuple[str, ...],
    results: str | None,
    overwrite: bool,
    as_json: bool,
    debug: bool,
    **given: Any,
) -> None:
    """Enlarge every image of a manifest. The same command again finishes what is left.

    --budget is a share of the dearest tier for all images together: easy ones leave more to hard
    ones. A budget in the manifest is for its image alone. --deadline is for all images together
    too.
    """
    where = given["ray_address"]
    if where == "local" and os.environ.get("RAY_ADDRESS"):
        where = "auto"  # submitted to a running cluster: that is where the work belongs
    check_secrets(manifest_path)
    manifest = Manifest.read(manifest_path)
    path = results or (join_path(output_root, "results.parquet") if output_root else None)
    if path is not None:
        try:
            place(path).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_failure(path, error) from error
    job = JobOptions(
        to_options(given),
        output_root,
        where,
        given["layout"],
        given["workers"],
        given["max_memory"],
        overwrite,
    )
    job = replace(job, output_bounds=os.getcwd(), source_roots=source_roots)
    with Draining() as draining:
        table = upscale_dataset(manifest, job, draining)
        if path is not None:
            write_table(path, table)
        rows = table.to_pylist()
        failed = [row for row in rows if row["status"] not in ("done", "skipped")]
        for row in failed:
            text = (
                row["error"]
                if row["error"].startswith("row ")
                else f"row {row['row']}: {row['error']}"
            )
            say(text)
        good = len(rows) - len(failed)
        text = f"{good} of {len(manifest)} images are enlarged, {len(failed)} failed" + (
            f"; the table is {path}" if path else ""
        )
        status = "interrupted" if draining.code else "failed" if failed else "done"
        emit(
            as_json,
            {
                "status": status,
                "images": len(manifest),
                "done": good,
                "failed": len(failed),
                "results": path,
                "error": text if failed else None,
            },
            text,
        )
        if draining.code:
            say("stopped; the same command again goes on from here")
            raise Ended(draining.code)
        if failed:
            raise Ended(1)


def main(arguments: list[str] | None = None) -> None:
    """Run the job; exit codes as of the tierscale command."""
    run_command(command, sys.argv[1:] if arguments is None else arguments)


if __name__ == "__main__":
    main()
