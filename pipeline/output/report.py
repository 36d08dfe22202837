"""What is left beside an output for people and programs: tile table, preview, routing map,
report.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jinja2 import Environment, FileSystemLoader, Template
from PIL import Image, ImageDraw, ImageFont

from tierscale.pipeline.formats.metadata import PhotoMetadata
from tierscale.pipeline.geometry.grid import Rect, Span
from tierscale.pipeline.output import store
from tierscale.pipeline.output.ome import MICROSCOPE_COLOURS
from tierscale.pipeline.plan.plan import Plan
from tierscale.pipeline.routing import policies as routing
from tierscale.pipeline.storage.atomic import write_bytes, write_json
from tierscale.pipeline.storage.path_policy import printable
from tierscale.pipeline.storage.paths import Place, place
from tierscale.pipeline.storage.sidecar import sidecar

# Channels of a scientific image that the preview shows.
SHOWN = 6
# From calm to loud: cheap tiers are cold, dear ones warm.
TINTS = ((59, 91, 165), (66, 168, 137), (240, 168, 48), (214, 66, 60), (140, 60, 160), (90, 90, 90))


def page(template: Path) -> Template:
    """A page to fill in. Names come from strangers: their markup and control characters are escaped."""
    pages = Environment(
        loader=FileSystemLoader(template.parent),
        autoescape=True,
        finalize=lambda one: printable(one) if isinstance(one, str) else one,
    )
    return pages.get_template(template.name)


TILES = pa.schema(
    [
        *((name, pa.int32()) for name in ("row", "column", "y", "x", "height", "width")),
        ("difficulty", pa.float32()),
        ("predicted_mse", pa.list_(pa.float32())),
        ("tier", pa.string()),
        ("cost", pa.float64()),
        ("milliseconds", pa.float32()),
        ("shard_row", pa.int32()),
        ("shard_column", pa.int32()),
    ]
)


def write_tiles(
    folder: Place, plan: Plan, scores: np.ndarray, macs: np.ndarray | None = None
) -> None:
    """The tile table, rows in reading order. scores: (tiles, tiers). spent: cost and milliseconds
    as receipts tell, (2, rows, columns); 0 until they do.
    """
    assert plan.routes is not None
    rows, columns = plan.grid.tiles
    row, column = (index.ravel() for index in np.indices((rows, columns)))
    tile, (height, width) = plan.tile, plan.grid.size
    tall, wide = plan.grid.shard_tiles
    cost, milliseconds = np.zeros((2, rows, columns)) if macs is None else macs
    labels = pa.array([tier.label for tier in plan.tiers])
    scores = np.ascontiguousarray(scores, np.float32)
    # No object for each tile: a million of them would take more than all else.
    predicted = pa.ListArray.from_arrays(
        np.arange(len(scores) + 1, dtype=np.int32) * scores.shape[1], scores.ravel()
    )
    table = pa.table(
        {
            "row": row,
            "column": column,
            "y": row * tile,
            "x": column * tile,
            "height": np.minimum(tile, height - row * tile),
            "width": np.minimum(tile, width - column * tile),
            "difficulty": routing.difficulty(scores),
            "predicted_mse": predicted,
            "tier": labels.take(pa.array(plan.routes.ravel())),
            "cost": cost.ravel(),
            "milliseconds": milliseconds.ravel(),
            "shard_row": row // tall,
            "shard_column": column // wide,
        },
        schema=TILES,
    )
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    write_bytes(folder / "tiles.parquet", sink.getvalue().to_pybytes())


def read_scores(folder: Place, tiers: int) -> np.ndarray:
    """Predicted errors from the tile table: (tiles, tiers)."""
    table = pa.BufferReader((folder / "tiles.parquet").read_bytes())
    column = pq.read_table(table, columns=["predicted_mse"])["predicted_mse"]
    return np.array(column.combine_chunks().flatten(), np.float32).reshape(-1, tiers)


def close(
    output: str,
    plan: Plan,
    macs: np.ndarray,
    summary: Mapping[str, Any],
    facts: PhotoMetadata,
    notes: Sequence[str],
) -> None:
    """Write what is left beside a finished output, but for the pictures. spent: as of
    write_tiles.
    """
    folder = sidecar(output)
    write_tiles(folder, plan, read_scores(folder, len(plan.tiers)), macs)
    write_json(folder / "summary.json", dict(summary))
    write_json(folder / "facts.json", facts.to_json())
    if facts.icc:
        write_bytes(folder / "profile.icc", facts.icc)
    html = page(Path(__file__).with_name("report.html")).render(
        summary=summary, plan=plan, notes=notes, name=Path(output).name
    )
    write_bytes(folder / "report.html", html.encode())


def draw(output: str, plan: Plan) -> None:
    """Write the preview and the routing map. This reads pixels, if few: it is work for a worker,
    not for the driver.
    """
    picture = preview(output, plan)
    save_picture(picture, sidecar(output) / "preview.png")
    save_picture(routing_map(picture, plan), sidecar(output) / "routing.png")


def save_picture(picture: Image.Image, path: str | Place) -> None:
    """Write a PNG whole or not at all."""
    import io

    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    write_bytes(place(str(path)), buffer.getvalue())


def preview(output: str, plan: Plan) -> Image.Image:
    """The smallest pyramid level as an 8-bit picture; its longer side has at most
    store.SMALLEST_LEVEL pixels, whatever the output has.
    """
    array = store.open_level(output, len(store.level_sizes(plan.grid.hr_size)) - 1)
    whole = Rect(Span(0, array.shape[1]), Span(0, array.shape[2]))
    shown = slice(SHOWN) if plan.colour == "channels" else slice(None)
    return Image.fromarray(display(store.read_rect(array, whole, output, shown), plan))


def display(pixels: np.ndarray, plan: Plan) -> np.ndarray:
    """Pixels (c, h, w) of any type as 8-bit (h, w) or (h, w, 3 or 4) for a screen; each channel of
    a scientific image is stretched.
    """
    assert plan.levels is not None
    if pixels.dtype == np.uint8 and plan.colour != "channels":
        eight = pixels
    else:
        values = pixels.astype(np.float32)
        if plan.levels.nodata is not None:
            values[pixels == np.asarray(plan.levels.nodata).astype(pixels.dtype)] = np.nan
        eight = _eight_bits(values, plan)
    if plan.colour == "grey":
        return eight[0]
    if plan.colour == "channels":
        colours = [tuple(int(c[i : i + 2], 16) for i in (0, 2, 4)) for c in MICROSCOPE_COLOURS]
        mixed = np.zeros((*eight.shape[1:], 3), np.float32)
        for index, channel in enumerate(eight):
            tint = colours[index % len(colours)] if len(eight) > 1 else (255, 255, 255)
            mixed += channel[..., None].astype(np.float32) * np.array(tint, np.float32) / 255
        return np.clip(mixed, 0, 255).astype(np.uint8)
    if plan.colour == "greya":
        eight = np.concatenate([eight[:1]] * 3 + [eight[1:]])
    return np.ascontiguousarray(eight.transpose(1, 2, 0))


def _eight_bits(values: np.ndarray, plan: Plan) -> np.ndarray:
    """Channels (c, h, w) for a screen: those of a colour image stretched together to keep its hue;
    alpha by its type; others apart.
    """
    if plan.colour == "channels":
        return np.stack([_stretched(channel) for channel in values])
    colours = values if plan.alpha is None else values[:-1]
    eight = _stretched(colours.reshape(-1, values.shape[-1])).reshape(colours.shape)
    if plan.alpha is None:
        return eight
    top = 1.0 if np.dtype(plan.dtype).kind == "f" else float(np.iinfo(np.dtype(plan.dtype)).max)
    return np.concatenate([eight, np.clip(values[-1:] / top * 255, 0, 255).astype(np.uint8)])


def _stretched(channel: np.ndarray) -> np.ndarray:
    """Values with their 0.5th to 99.5th percentile brought to 0..255; black where there is no
    data.
    """
    known = channel[np.isfinite(channel)]
    if known.size == 0:
        return np.zeros(channel.shape, np.uint8)
    low, high = np.percentile(known, (0.5, 99.5))
    scaled = (channel - low) / max(high - low, 1e-12) * 255
    return np.clip(np.nan_to_num(scaled), 0, 255).astype(np.uint8)


def laid_over(picture: Image.Image, plan: Plan) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What maps of the tiles are drawn on: the picture in grey (h, w), at least 480 wide, and the
    row and column of tiles of its pixels.
    """
    base = np.asarray(picture.convert("RGBA").convert("L"), np.float32)
    wide = max(480, picture.width)
    if picture.width < wide:
        base = np.asarray(
            picture.convert("L").resize((wide, max(1, picture.height * wide // picture.width))),
            np.float32,
        )
    height, width = base.shape
    rows = np.minimum(
        (np.arange(height) + 0.5) / height * plan.grid.size[0] // plan.tile, plan.grid.tiles[0] - 1
    ).astype(int)
    columns = np.minimum(
        (np.arange(width) + 0.5) / width * plan.grid.size[1] // plan.tile, plan.grid.tiles[1] - 1
    ).astype(int)
    return base, rows, columns


def tinted(base: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """A grey picture (h, w), 0..255, as light and shade of colours (h, w, 3) that stay what a
    legend shows; (h, w, 3) uint8.
    """
    light = (base[..., None] / 255 - 0.5) * 0.7
    mixed = np.where(light > 0, colours + (255 - colours) * light, colours * (1 + light))
    return np.clip(mixed, 0, 255).astype(np.uint8)


def routing_map(picture: Image.Image, plan: Plan) -> Image.Image:
    """The tier of every tile as a tint over the picture, with a legend below."""
    assert plan.routes is not None
    base, rows, columns = laid_over(picture, plan)
    tints = np.array([TINTS[index % len(TINTS)] for index in _spread(len(plan.tiers))], np.float32)
    index = plan.routes[rows][:, columns]
    mixed = tinted(base, tints[index])
    # A thin darker line where the tier changes shows single tiles without hiding the picture.
    edge = np.zeros(index.shape, bool)
    edge[1:] |= index[1:] != index[:-1]
    edge[:, 1:] |= index[:, 1:] != index[:, :-1]
    mixed[edge] = (0.6 * mixed[edge]).astype(np.uint8)
    return _with_legend(Image.fromarray(mixed), plan, tints)


def _spread(tiers: int) -> list[int]:
    """Which tints to use: cheapest blue, dearest red when there are few."""
    return {1: [1], 2: [0, 3], 3: [0, 2, 3], 4: [0, 1, 2, 3]}.get(tiers, list(range(tiers)))


def _with_legend(picture: Image.Image, plan: Plan, tints: np.ndarray) -> Image.Image:
    assert plan.routes is not None
    line = 26
    sheet = Image.new("RGB", (picture.width, picture.height + 12 + line * len(plan.tiers)), "white")
    sheet.paste(picture, (0, 0))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(16)
    for index, tier in enumerate(plan.tiers):
        top = picture.height + 8 + line * index
        count = int((plan.routes == index).sum())
        draw.rectangle((10, top + 3, 28, top + 19), fill=tuple(int(c) for c in tints[index]))
        draw.text(
            (38, top),
            f"{tier.label}: {count} of {plan.routes.size} tiles ({count / plan.routes.size:.0%})",
            fill="black",
            font=font,
        )
    return sheet
