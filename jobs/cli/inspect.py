"""`tierscale status` and `tierscale explain`: questions to an output."""

import time

import click

from tierscale.jobs.cli.options import answering
from tierscale.jobs.cli.terminal import emit


@click.command()
@click.argument("output")
@answering
def status(output: str, as_json: bool, debug: bool) -> None:
    """Show how far OUTPUT.zarr is, who works on it, and how long it will take."""
    from tierscale.pipeline.run.verify import status_of

    content = status_of(output, time.time())
    emit(as_json, content, content["text"])


@click.command()
@click.argument("output")
@click.option(
    "--png",
    "picture",
    metavar="FILE",
    help="Where the maps are written (default: explain.png in the folder beside OUTPUT.zarr).",
)
@answering
def explain(output: str, picture: str | None, as_json: bool, debug: bool) -> None:
    """Show where the compute of OUTPUT.zarr went.

    Draws the map of its tiers beside the difficulty of its tiles.
    """
    from tierscale.jobs.cli.upscale import check_picture
    from tierscale.pipeline.output import explain as evidence
    from tierscale.pipeline.output.pictures.preview import save_picture
    from tierscale.pipeline.storage.sidecar import sidecar

    check_picture(picture)
    path = picture or str(sidecar(output) / "explain.png")
    explanation = evidence.explain(output)
    save_picture(evidence.draw(output), path)
    content = {
        "status": "done",
        **explanation.to_json(),
        "files": {"explain": path},
        "error": None,
    }
    emit(as_json, content, [*evidence.to_lines(explanation), f"  maps             {path}"])
