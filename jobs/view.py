"""`tierscale view`: an output beside its source, or a source alone, in the browser."""

import os
import sys
import webbrowser
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from tierscale.jobs.cli.options import answering
from tierscale.jobs.cli.terminal import emit
from tierscale.pipeline.errors import Damaged, Refused, one_line
from tierscale.pipeline.wording import in_bytes

if TYPE_CHECKING:
    from tierscale.pipeline.formats.source import Source
    from tierscale.pipeline.output.receipts import Folder
    from tierscale.pipeline.plan.plan import Plan
    from tierscale.pipeline.view.layers import Read
    from tierscale.pipeline.view.scene import Named, Scene, Tiers

# Sources that can only be read from top to bottom are held in memory, up to so many bytes.
HELD_BYTES = 4 << 30
# Of a source alone.
SCALE = Fraction(4)


@click.command()
@click.argument("path", metavar="OUTPUT.zarr|SOURCE")
@click.option("--no-browser", is_flag=True, help="Only print the address.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port (default: a free one).")
@click.option(
    "--static",
    "folder",
    metavar="DIR",
    help="Write the page and its tiles into the new folder DIR, and serve nothing.",
)
@answering
def view(path: str, folder: str | None, **cli_args: Any) -> None:
    """Look at OUTPUT.zarr beside its source, with the tiers of its tiles.

    A SOURCE alone is shown beside its bicubic enlargement. The page is for this machine alone, and
    asks nothing of any other; Ctrl-C ends it.
    """
    from tierscale.pipeline.view import server, static

    scene = scene_of(path)
    if folder is not None:
        write_static(scene, folder, static.write, cli_args["as_json"])
        return
    served, address = server.listen(scene, cli_args["port"] or 0)
    content = {"status": "done", "address": address, "error": None}
    emit(cli_args["as_json"], content, address)
    sys.stdout.flush()
    with served:
        if not cli_args["no_browser"]:
            webbrowser.open(address)
        server.serve(served)


def write_static(
    scene: "Scene",
    folder: str,
    write: Callable[["Scene", str, Callable[[int, int], None]], None],
    as_json: bool,
) -> None:
    """Write the page into a folder. Refused: there is something by this name."""
    from tierscale.jobs.cli.progress import Bar
    from tierscale.pipeline.run.exports import bytes_of

    if os.path.lexists(folder):
        raise Refused(f"{folder} is there already; name a new folder")
    with Bar() as bar:
        write(scene, folder, partial(bar, "view"))
    size = bytes_of(folder)
    page = os.path.join(folder, "index.html")
    content = {"status": "done", "output": folder, "bytes": size, "error": None}
    emit(as_json, content, f"{page}: {in_bytes(size)} with its tiles; open it in a browser")


def scene_of(path: str) -> "Scene":
    """What is shown of an output or a source. Refused: it is neither."""
    from tierscale.pipeline.output.receipts import Folder

    folder = Folder(path)
    return of_output(path, folder, folder.plan()) if folder.exists() else of_source(path)


def of_output(path: str, folder: "Folder", plan: "Plan") -> "Scene":
    """An output beside its source, if that is still what it was."""
    from tierscale.pipeline.formats.metadata import PhotoMetadata
    from tierscale.pipeline.output import store
    from tierscale.pipeline.output.export.common import Exported
    from tierscale.pipeline.view.colours import Screen
    from tierscale.pipeline.view.layers import Stored
    from tierscale.pipeline.view.scene import Named, Scene

    attributes = store.attributes_of(path)
    metadata = PhotoMetadata.from_json(folder.read_json("facts.json") or {})
    levels = Exported(path, plan.colour, plan.alpha, metadata).levels()
    screen = Screen.of(attributes, plan.colour, plan.alpha)
    opponents, missing = _source_of(plan, screen)
    size = metadata.pixel_size and metadata.pixel_unit and float(metadata.pixel_size[1])
    return Scene(
        title=os.path.basename(path.rstrip("/")),
        sizes=[(level.shape[1], level.shape[2]) for level in levels],
        result=Named("result", Stored(path, levels, screen)),
        opponents=opponents,
        scale=float(plan.scale),
        tiers=_tiers_of(folder, plan),
        pixel=(size, str(metadata.pixel_unit)) if size else None,
        facts=[*_facts_of(folder, plan), *missing],
        alpha=plan.alpha is not None,
    )


def of_source(path: str) -> "Scene":
    """A source beside its bicubic enlargement. Refused: it is no image."""
    from tierscale.pipeline.formats.registry import open_image
    from tierscale.pipeline.output.levels import level_sizes
    from tierscale.pipeline.view.colours import Screen
    from tierscale.pipeline.view.scene import Scene

    source = open_image(path)
    channels, height, width = source.shape
    screen = Screen.plain(source.dtype, channels, source.colour, source.alpha)
    smooth, square = _beside(source, None, SCALE, screen)
    return Scene(
        title=os.path.basename(path.rstrip("/")),
        sizes=level_sizes((int(height * SCALE), int(width * SCALE))),
        result=smooth,
        opponents=[square],
        scale=float(SCALE),
        facts=[("source", path), ("size", f"{width} x {height} pixels, {channels} channels")],
        alpha=source.alpha is not None,
    )


def _source_of(plan: "Plan", screen: Any) -> tuple[list["Named"], list[tuple[str, str]]]:
    """(what the result is compared with, why there is nothing)."""
    from tierscale.pipeline.run.inspect import reopen
    from tierscale.pipeline.run.workers.worker import open_pixels

    try:
        reopen(plan)
        source = open_pixels(plan.source.in_place)
        return list(_beside(source, plan.source.region, plan.scale, screen)), []
    except (Refused, Damaged) as error:
        return [], [("source", f"not shown: {one_line(error)}")]


def _beside(
    source: "Source", region: tuple[int, int, int, int] | None, scale: Fraction, screen: Any
) -> tuple["Named", "Named"]:
    """A source enlarged bicubically, and its pixels as squares."""
    from tierscale.pipeline.view.layers import Original
    from tierscale.pipeline.view.scene import Named

    read = readable(source)
    left, top, width, height = region or (0, 0, source.shape[2], source.shape[1])

    def part(y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        return read(top + y0, top + y1, left + x0, left + x1)

    layers = (Original(part, (height, width), scale, smooth, screen) for smooth in (True, False))
    smooth, square = layers
    return Named("bicubic", smooth), Named("source pixels", square)


def readable(source: "Source") -> "Read":
    """What reads windows of a source; one that is read from top to bottom is held in memory.

    Refused: it is too large for that.
    """
    if source.random_access:
        return source.read
    needed = int(np.prod(source.shape)) * source.dtype.itemsize
    if needed > HELD_BYTES:
        raise Refused(
            f"{source.uri} can only be read from top to bottom and takes {in_bytes(needed)};"
            " tierscale ingest makes a copy that is read by windows"
        )
    whole = np.empty(source.shape, source.dtype)
    for y, strip in source.strips():
        whole[:, y : y + strip.shape[1]] = strip

    def read(y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        return whole[:, y0:y1, x0:x1]

    return read


def _tiers_of(folder: "Folder", plan: "Plan") -> "Tiers | None":
    """The tiers of the tiles, with what the table says of each; None: there is no table yet."""
    from tierscale.pipeline.output import tile_table
    from tierscale.pipeline.output.pictures.tile_maps import TileMap
    from tierscale.pipeline.view.scene import Tiers

    tiles = TileMap.of(plan)
    try:
        table = tile_table.read(folder.path)
    except Refused:
        return Tiers(tiles, float(plan.tile * plan.scale))
    columns = {
        name: table[name].to_numpy().astype(np.float64).reshape(tiles.routes.shape)
        for name in ("difficulty", "fidelity", "milliseconds")
    }
    figures = {
        # As root, on the scale on which people see.
        "saved by the full tier": (255 * np.sqrt(np.maximum(columns["difficulty"], 0)), " levels"),
        "shrunk beside the source": (columns["fidelity"], " dB"),
        "took": (columns["milliseconds"], " ms"),
    }
    known = plan.knows_errors
    shown = {name: one for name, one in figures.items() if known or "saved" not in name}
    return Tiers(tiles, float(plan.tile * plan.scale), shown)


def _facts_of(folder: "Folder", plan: "Plan") -> list[tuple[str, str]]:
    """What is told of an output."""
    from tierscale.pipeline.output.receipts import SUMMARY

    channels, height, width = plan.hr_shape
    facts = [
        ("result", f"{width} x {height} pixels, {channels} channels, {plan.dtype}"),
        ("scale", str(plan.scale)),
        ("source", plan.source.uri),
        ("tiers", ", ".join(tier.label for tier in plan.tiers)),
        ("precision", plan.precision),
        ("plan", plan.digest[:16]),
    ]
    summary = folder.read_json(SUMMARY) or {}
    facts += [("note", str(note)) for note in summary.get("notes", ())]
    return facts
