"""`tierscale status`, `verify` and `explain`: questions to an output."""

import time

import click

from tierscale.jobs.cli.exits import Ended
from tierscale.jobs.cli.options import answering
from tierscale.jobs.cli.terminal import emit, say
from tierscale.pipeline.wording import counted


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
@click.option("--heal", is_flag=True, help="Make shards that differ from their receipts again.")
@answering
def verify(output: str, heal: bool, as_json: bool, debug: bool) -> None:
    """Read every shard of OUTPUT.zarr back and compare it with its receipt."""
    from tierscale.cluster.session import session
    from tierscale.pipeline.output.receipts import Folder
    from tierscale.pipeline.run.verify import verify_output

    # Healing takes the kind of device that the shards were planned for; comparing takes none.
    device = Folder(output).plan().device if heal else "cpu"
    with session("none", "auto", device) as pool:
        content = verify_output(output, pool, heal)
    problems, healed = content["problems"], content["healed"]
    for problem in problems:
        say(problem)
    good = not problems or healed == len(problems)
    text = f"{output}: {counted(content['shards'], 'shard')}, {len(problems)} wrong"
    if heal:
        text += f", {healed} healed"
    for note in content["notes"]:
        say(f"note: {note}")
    result = {"status": "done" if good else "failed", "error": None if good else text}
    emit(as_json, {**content, **result}, text)
    if not good:
        raise Ended(1)


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
