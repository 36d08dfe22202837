"""`tierscale upscale` and `tierscale plan`, which says what upscale would do."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tierscale.jobs.cli.exits import Draining, Progress
from tierscale.jobs.cli.export import (
    check_export,
    check_png,
    check_source,
    zarr_beside,
)
from tierscale.jobs.cli.options import answering, shared, to_options
from tierscale.jobs.cli.terminal import emit
from tierscale.pipeline.errors import Interrupted, Refused
from tierscale.pipeline.wording import counted, in_bytes

if TYPE_CHECKING:
    from tierscale.pipeline.plan.options import Options
    from tierscale.pipeline.plan.plan import Plan
    from tierscale.pipeline.run.job import Controls, ImageJob
    from tierscale.pipeline.run.workers.pool import Pool


@click.command()
@click.argument("source")
@click.argument("output")
@shared
@click.option(
    "--overwrite", is_flag=True, help="Replace an output of tierscale that has another plan."
)
@click.option(
    "--keep-source", is_flag=True, help="Keep the ingested copy of the source beside the output."
)
@click.option(
    "--consolidated",
    is_flag=True,
    help="Put the metadata of all levels into those of the zarr group, too.",
)
@answering
def upscale(source: str, output: str, overwrite: bool, keep_source: bool, **cli_args: Any) -> None:
    """Enlarge SOURCE into OUTPUT, which ends in .zarr, .tif or .png.

    A .tif or .png is exported from a zarr beside it. To resume after an interruption, run the same
    command.
    """
    from tierscale.cluster.session import session
    from tierscale.jobs.cli.progress import Bar
    from tierscale.pipeline.run.job import Controls, ImageJob
    from tierscale.pipeline.run.run import Stopped

    check_export(output, source, overwrite)
    options, max_memory = to_options(cli_args), cli_args["max_memory"]
    job = ImageJob(
        source,
        zarr_beside(output),
        options,
        max_memory,
        overwrite,
        keep_source,
        consolidated=cli_args["consolidated"],
    )
    check_source(source)
    check_png(output, source, options, max_memory)
    where = [cli_args[name] for name in ("ray_address", "layout", "device", "workers")]
    with Draining() as draining, session(*where) as pool:
        draining.arm()
        with Bar() as bar:
            try:
                controls = Controls(bar, draining.stop)
                summary = enlarge_to(output, job, pool, controls, draining.watched(bar))
            except Stopped as stopped:
                text = f"{stopped}; run the same command again to resume"
                content = stopped.summary.to_json()
                raise draining.end(cli_args["as_json"], content, text) from None
    emit(cli_args["as_json"], summary, [*report(summary), *what_was_done(summary)])


def enlarge_to(
    output: str, job: "ImageJob", pool: "Pool", controls: "Controls", progress: Progress
) -> dict[str, Any]:
    """Enlarge, and export where the output is a file; the summary. Stopped: it was interrupted."""
    from tierscale.pipeline.run.exports import Export
    from tierscale.pipeline.run.run import Stopped, upscale_image

    finished = upscale_image(job, pool, controls)
    summary = finished.to_json()
    if output != zarr_beside(output):
        export = Export(job.output, output, max_memory=job.max_memory, overwrite=job.overwrite)
        try:
            export.write(progress)
        except Interrupted:
            raise Stopped(replace(finished, status="interrupted")) from None
        summary["files"]["export"] = str(Path(output).resolve())
    return summary


def report(summary: Mapping[str, Any]) -> list[str]:
    """The output of an upscaling, and who makes its tiles, in lines for a person."""
    from tierscale.pipeline.output.summary import WorstTile
    from tierscale.pipeline.plan.evidence import Audit

    total = max(1, sum(summary["tiles"].values()))
    channels, height, width = summary["shape"]
    lines = [
        f"{summary['output']}: {width}x{height} pixels, {counted(channels, 'channel')},"
        f" {summary['dtype']}"
    ]
    for tier, count in summary["tiles"].items():
        lines.append(
            f"  {tier:<16} {count:>7} {'tile' if count == 1 else 'tiles':<5}  {count / total:>5.0%}"
        )
    if summary["cost_share"] is not None:
        lines.append(
            f"  cost             {summary['cost']:.3g} multiply-adds, {summary['cost_share']:.1%}"
            " of the full tier everywhere"
        )
    if summary["audit"] is not None:
        full = list(summary["tiles"])[-1]
        lines.append(f"  loss             {Audit(**summary['audit']).in_words(full)}")
    shards = summary["shards"]
    before = f", done before: {shards['done_before']}" if shards["done_before"] else ""
    lines.append(f"  shards           {shards['total']}{before}")
    if (tile := summary["fidelity"]) is not None:
        lines.append(f"  fidelity         {WorstTile(tile['worst_db'], tile['y'], tile['x'])}")
    return lines


def what_was_done(summary: Mapping[str, Any]) -> list[str]:
    """The seconds and files of an upscaling, in lines for a person."""
    seconds = ", ".join(f"{stage} {took:.1f}" for stage, took in summary["seconds"].items())
    return [f"  seconds          {seconds}", *files_and_notes(summary)]


def files_and_notes(summary: Mapping[str, Any]) -> list[str]:
    """What lies beside the output, and what else is to be said, in lines for a person."""
    return [
        *(f"  {name:<16} {path}" for name, path in summary["files"].items()),
        *(f"  note: {note}" for note in summary["notes"]),
    ]


@click.command()
@click.argument("source")
@click.argument("output")
@shared
@click.option(
    "--overwrite", is_flag=True, help="Plan for upscale --overwrite, which replaces another plan."
)
@click.option(
    "--keep-source",
    is_flag=True,
    help="Count the ingested copy of the source as bytes on the disk.",
)
@click.option("--consolidated", is_flag=True, hidden=True)
@click.option(
    "--curve",
    metavar="FILE.png",
    help="Draw the predicted loss of this image over shares of the full tier's cost.",
)
@answering
def plan(
    source: str, output: str, overwrite: bool, keep_source: bool, curve: str | None, **cli_args: Any
) -> None:
    """Show what upscale would do with the same arguments, and what it would take.

    Nothing is written to OUTPUT.
    """
    from tierscale.cluster.session import session
    from tierscale.jobs.cli.progress import Bar
    from tierscale.pipeline.run.job import ImageJob
    from tierscale.pipeline.run.run import plan_only

    # A plan replaces nothing, so what lies at the output's place is no reason to refuse.
    check_export(output, source, overwrite=True)
    options, max_memory = to_options(cli_args), cli_args["max_memory"]
    where = zarr_beside(output)
    request = ImageJob(source, where, options, max_memory, overwrite, keep_source, known=True)
    check_curve(curve, options)
    check_source(source)
    check_png(output, source, options, max_memory)
    ray = "none" if cli_args["ray_address"] == "local" else cli_args["ray_address"]
    workers = [cli_args[name] for name in ("layout", "device", "workers")]
    with session(ray, *workers) as pool, Bar() as bar:
        planned, summary = plan_only(request, pool, bar)
    summary["notes"] += replaced(request.output, planned, overwrite)
    if curve is not None:
        summary["files"]["curve"] = draw_curve(summary, curve, os.path.basename(source))
    emit(cli_args["as_json"], summary, [*report(summary), *forecast(summary)])


def replaced(output: str, planned: "Plan", overwrite: bool) -> list[str]:
    """A note where the output holds another plan, which upscale replaces only with --overwrite."""
    from tierscale.pipeline.output.receipts import Folder

    folder = Folder(output)
    if not folder.exists():
        return []
    try:
        same = folder.plan().digest == planned.digest
    except Refused:
        same = False
    if same:
        return []
    how = "upscale --overwrite replaces it" if overwrite else "upscale needs --overwrite"
    return [f"{output} was made by another plan: {how}"]


def forecast(summary: Mapping[str, Any]) -> list[str]:
    """What an upscaling would take, in lines for a person."""
    return [
        f"  memory           {in_bytes(summary['memory_bytes'])} at most",
        f"  disk             {in_bytes(summary['disk_bytes'])} before compression",
        f"  time             about {max(1, round(summary['seconds_estimate']))} s",
        (
            f"  tiles of         {summary['tile']} pixels, halo {summary['halo']}"
            f" (+{summary['halo_overhead']:.0%} work)"
        ),
        *alternative_lines(summary["alternatives"]),
        *curve_lines(summary["curve"]),
        *files_and_notes(summary),
    ]


def alternative_lines(others: Sequence[Mapping[str, Any]]) -> list[str]:
    """What other policies would take and lose, in one line for a person."""
    if not others:
        return []
    found = [f"{o['policy']}: {o['cost_share']:.0%}, {o['loss_db']:.3f} dB" for o in others]
    return [f"  alternatives     {'; '.join(found)}"]


def curve_lines(curve: Sequence[tuple[float, float]] | None) -> list[str]:
    """The predicted loss at each cost, in lines for a person."""
    if not curve:
        return []
    return [
        "  budget           predicted loss against the full tier",
        *(f"  {share:>6.0%}           {loss:.3f} dB" for share, loss in curve),
    ]


def check_picture(path: str | None) -> None:
    """Refuse a picture that does not end in .png, or lies in a folder that does not exist."""
    from tierscale.pipeline.output.export.common import check_folder

    if path is None:
        return
    if not path.lower().endswith(".png"):
        raise Refused(f"the picture {path} does not end in .png; give it a name that does")
    if "://" not in path:
        check_folder(path)


def check_curve(path: str | None, options: "Options") -> None:
    """Refuse a curve that cannot be drawn, before the image is opened."""
    from tierscale.pipeline.plan.policies import needs_scores

    check_picture(path)
    if path is not None and not needs_scores(options.policy):
        raise Refused(
            f"policy {options.policy.name} scores no tiles, so there is no curve; choose another"
            " policy, or leave out --curve"
        )


def draw_curve(summary: Mapping[str, Any], path: str, name: str) -> str:
    """Draw the curve of a plan's summary with the plan on it; the path of the picture.

    Refused: there is no curve.
    """
    from tierscale.pipeline.output.pictures.charts import curve_chart
    from tierscale.pipeline.output.pictures.preview import save_picture

    curve, tiers = summary["curve"], list(summary["tiles"])
    if not curve and len(tiers) == 1:
        raise Refused(
            f"with {tiers[0]} alone there is nothing to choose and no curve; name more --tiers, or"
            " leave out --curve"
        )
    if not curve:
        raise Refused(
            f"what {', '.join(tiers)} lose was not measured, so there is no curve; leave out"
            " --curve"
        )
    save_picture(curve_chart(name, curve, (summary["cost_share"], summary["lost"])), path)
    return path
