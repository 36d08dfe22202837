"""The tierscale command."""

import os
import sys
import time
from pathlib import Path
from typing import Any

import click

from tierscale.jobs.cli.ending import Draining, Ended, emit, run_command, say
from tierscale.jobs.cli.explain import check_curve, draw_curve, explain_output, tell_curve
from tierscale.jobs.cli.export import check_export, check_png, export_to, zarr_beside
from tierscale.jobs.cli.models import models
from tierscale.jobs.cli.options import BytesType, ScaleType, answering, shared, to_options
from tierscale.jobs.cli.scout import scout
from tierscale.jobs.train import train
from tierscale.pipeline.errors import Interrupted, Refused
from tierscale.pipeline.formats.registry import Selection, open_image


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tierscale", prog_name="tierscale")
def cli() -> None:
    """Enlarge very large images: a big network only where the picture needs one."""


@cli.command()
@click.argument("source")
@click.argument("output")
@shared
@click.option(
    "--overwrite", is_flag=True, help="Replace an output of ours that was planned otherwise."
)
@click.option(
    "--keep-source", is_flag=True, help="Keep the ingested copy of the source beside the output."
)
@answering
def upscale(
    source: str,
    output: str,
    overwrite: bool,
    keep_source: bool,
    as_json: bool,
    debug: bool,
    **given: Any,
) -> None:
    """Enlarge SOURCE into OUTPUT.zarr (or .tif or .png, exported from a zarr beside it).

    The same command again goes on where it stopped.
    """
    from tierscale.cluster.session import session
    from tierscale.jobs.cli.progress import Bar
    from tierscale.pipeline.run.run import Request, Run

    target = zarr_beside(output)
    check_export(output, source, overwrite)
    request = Request(
        source, target, to_options(given), given["max_memory"], overwrite, keep_source
    )
    check_source(source)
    check_png(output, source, request.options, given["max_memory"])
    with (
        Draining() as draining,
        session(given["ray_address"], given["layout"], given["device"], given["workers"]) as pool,
    ):
        draining.arm()
        with Bar() as bar:
            run = Run(request, pool, bar, draining.stop)
            try:
                summary = run.carry_out()
                if output != target:
                    export_to(
                        target,
                        output,
                        "deflate",
                        given["max_memory"],
                        draining.watched(bar),
                        overwrite,
                    )
                    summary["files"]["export"] = str(Path(output).resolve())
            except Interrupted:
                text = (
                    f"stopped with {run.written} shards written; the same command again goes on"
                    " from here"
                )
                raise draining.end(as_json, run.summary("interrupted"), text) from None
    emit(as_json, summary, tell(summary))


def check_source(source: str) -> None:
    """Refuse a missing source before a cluster is started for it."""
    if "://" not in source and not Path(source).exists():
        raise Refused(f"there is no file or zarr {source}")


def tell(summary: dict[str, Any]) -> str:
    """The summary of an upscaling for a person."""
    total = max(1, sum(summary["tiles"].values()))
    lines = [
        f"{summary['output']}: {summary['shape'][2]}x{summary['shape'][1]} pixels,"
        f" {summary['shape'][0]} channels, {summary['dtype']}"
    ]
    for tier, count in summary["tiles"].items():
        lines.append(f"  {tier:<16} {count:>7} tiles  {count / total:>5.0%}")
    if summary["cost_share"] is not None:
        lines.append(
            f"  cost             {summary['cost']:.3g} multiply-adds, {summary['cost_share']:.1%}"
            " of the dearest tier everywhere"
        )
    lines.append(
        "  seconds          "
        + ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in summary["seconds"].items())
    )
    shards = summary["shards"]
    lines.append(
        f"  shards           {shards['total']}, of which {shards['done_before']} were done before"
    )
    lines.extend(f"  {name:<16} {path}" for name, path in summary["files"].items())
    lines.extend(f"  note: {note}" for note in summary["notes"])
    return "\n".join(lines)


@cli.command()
@click.argument("source")
@click.argument("output")
@shared
@click.option("--overwrite", is_flag=True, hidden=True)
@click.option("--keep-source", is_flag=True, hidden=True)
@click.option(
    "--curve",
    help="PNG to draw: what this image is predicted to lose at each share of the dearest cost.",
)
@answering
def plan(
    source: str,
    output: str,
    overwrite: bool,
    keep_source: bool,
    curve: str | None,
    as_json: bool,
    debug: bool,
    **given: Any,
) -> None:
    """Say what upscale would do with the same arguments, and what it would take; writes nothing to
    OUTPUT.
    """
    from tierscale.cluster.session import session
    from tierscale.jobs.cli.progress import Bar
    from tierscale.pipeline.run.run import Request, plan_only

    check_export(output, source, overwrite)
    request = Request(
        source, zarr_beside(output), to_options(given), given["max_memory"], overwrite
    )
    check_curve(curve, request.options)
    check_source(source)
    check_png(output, source, request.options, given["max_memory"])
    where = "none" if given["ray_address"] == "local" else given["ray_address"]
    with session(where, given["layout"], given["device"], given["workers"]) as pool, Bar() as bar:
        _, summary = plan_only(request, pool, bar)
    if curve is not None:
        summary["files"]["curve"] = draw_curve(summary, curve, os.path.basename(source))
    text = (
        tell(summary)
        + "\n"
        + "\n".join(
            (
                f"  memory           {summary['memory_bytes'] / 2**30:.2f} GiB at most",
                f"  disk             {summary['disk_bytes'] / 2**30:.2f} GiB before compression",
                f"  time             about {summary['seconds_estimate']:.0f} s",
                (
                    f"  tiles of         {summary['tile']} pixels, halo {summary['halo']}"
                    f" (+{summary['halo_overhead']:.0%} work)"
                ),
                *tell_curve(summary["curve"]),
            )
        )
    )
    emit(as_json, summary, text)


@cli.command()
@click.argument("output")
@click.option("--heal", is_flag=True, help="Do shards that differ again.")
@answering
def verify(output: str, heal: bool, as_json: bool, debug: bool) -> None:
    """Read every shard of OUTPUT.zarr back and compare it with its receipt."""
    from tierscale.cluster.session import session
    from tierscale.pipeline.output.receipts import Folder
    from tierscale.pipeline.run.verify import verify_output

    # Shards are done again on the kind of device that they were planned for; comparing them takes
    # none.
    with session("none", "auto", Folder(output).plan().device if heal else "cpu") as pool:
        found = verify_output(output, pool, heal)
    for problem in found["problems"]:
        say(problem)
    ok = not found["problems"] or found["healed"] == len(found["problems"])
    text = f"{output}: {found['shards']} shards, {len(found['problems'])} wrong" + (
        f", {found['healed']} done again" if heal else ""
    )
    emit(
        as_json,
        {"status": "done" if ok else "failed", **found, "error": None if ok else text},
        text,
    )
    if not ok:
        raise Ended(1)


@cli.command()
@click.argument("output")
@answering
def status(output: str, as_json: bool, debug: bool) -> None:
    """How far an output is, who works on it, and how long it will still take."""
    from tierscale.pipeline.run.verify import status_of

    found = status_of(output, time.time())
    emit(as_json, found, found["text"])


@cli.command()
@click.argument("output")
@click.argument("file")
@click.option(
    "--compression",
    type=click.Choice(["deflate", "zstd", "lzw", "jpeg", "none"]),
    default="deflate",
    show_default=True,
)
@click.option("--max-memory", type=BytesType())
@click.option("--overwrite", is_flag=True, help="Replace a file that was not exported from OUTPUT.")
@answering
def export(
    output: str,
    file: str,
    compression: str,
    max_memory: int | None,
    overwrite: bool,
    as_json: bool,
    debug: bool,
) -> None:
    """Write OUTPUT.zarr as FILE.tif (tiled, pyramidal, BigTIFF when needed) or FILE.png, with all
    photo facts.
    """
    from tierscale.jobs.cli.progress import Bar

    with Draining() as draining, Bar() as bar:
        try:
            export_to(output, file, compression, max_memory, draining.watched(bar), overwrite)
        except Interrupted:
            raise draining.end(
                as_json,
                {"output": file},
                f"stopped; {file} is not written, give the same command again",
            ) from None
    size = os.path.getsize(file)
    emit(
        as_json,
        {"status": "done", "output": file, "bytes": size, "error": None},
        f"{file}: {size / 2**20:.1f} MiB",
    )


@cli.command()
@click.argument("source")
@click.argument("output")
@click.option("--series", type=int)
@click.option("--level", type=int, default=0)
@click.option("--z", type=int)
@click.option("--t", type=int)
@click.option("--max-memory", type=BytesType())
@answering
def ingest(
    source: str,
    output: str,
    series: int | None,
    level: int,
    z: int | None,
    t: int | None,
    max_memory: int | None,
    as_json: bool,
    debug: bool,
) -> None:
    """Bring any image into a chunked zarr array, in bounded memory."""
    from tierscale.jobs.cli.progress import Bar
    from tierscale.pipeline.formats.arrays.ingest import ingest as ingest_image
    from tierscale.pipeline.run.draft import check_paths

    check_source(source)
    check_paths(source, output)
    with (
        Draining() as draining,
        Bar() as bar,
        open_image(source, Selection(series, level, z, t), max_memory) as image,
    ):
        told = draining.watched(bar)
        try:
            ingest_image(image, output, progress=lambda done, total: told("ingest", done, total))
        except Interrupted:
            raise draining.end(
                as_json,
                {"output": output},
                f"stopped; {output} is not written, give the same command again",
            ) from None
        content = {
            "status": "done",
            "output": output,
            "shape": list(image.shape),
            "dtype": image.dtype.name,
            "notes": list(image.notes),
            "error": None,
        }
        emit(
            as_json,
            content,
            f"{output}: {image.shape[2]}x{image.shape[1]} pixels, {image.shape[0]} channels,"
            f" {image.dtype.name}",
        )


cli.add_command(models)
cli.add_command(scout)
cli.add_command(explain_output)


@cli.command()
@click.option(
    "--hr",
    "folder",
    required=True,
    help="Folder of high-resolution images; they are shrunk, enlarged again, and compared.",
)
@click.option("--scale", type=ScaleType(), default="4", show_default=True)
@click.option("--tiers", help="Networks from cheap to dear, with commas between them.")
@click.option(
    "--policy",
    type=click.Choice(["adaptive", "budget", "threshold", "dearest", "cheapest"]),
)
@click.option("--budget", type=float)
@click.option("--threshold", type=float)
@click.option("--tile", type=int, default=128, show_default=True)
@answering
def evaluate(folder: str, as_json: bool, debug: bool, **given: Any) -> None:
    """PSNR and SSIM over a folder of images: RGB, edges shaved by the scale, input shrunk by
    bicubic and kept in float.
    """
    from tierscale.jobs.evaluate import evaluate_folder, tell_evaluation

    blank = dict.fromkeys(("value_range", "region", "series", "z", "t", "nodata"))
    options = to_options({**blank, "blend": 4, "device": "auto", "level": 0, **given})
    found = evaluate_folder(folder, options)
    emit(as_json, found, tell_evaluation(found))
    if found["status"] == "failed":
        say(f"tierscale: {found['error']}")
        raise Ended(1)


cli.add_command(train)


@cli.command("nightly", add_help_option=False, context_settings={"ignore_unknown_options": True})
@click.argument("line", nargs=-1, type=click.UNPROCESSED)
def nightly_archive(line: tuple[str, ...]) -> None:
    """Enlarge what is new or changed in an archive until a window closes."""
    from tierscale.jobs.nightly import command

    command.main(list(line), prog_name="tierscale nightly", standalone_mode=False)


def main(arguments: list[str] | None = None) -> None:
    """Run the command; every failure is one sentence on stderr and an exit code of INTERFACE's
    table.
    """
    given = sys.argv[1:] if arguments is None else arguments
    run_command(cli, given)


if __name__ == "__main__":
    main()
