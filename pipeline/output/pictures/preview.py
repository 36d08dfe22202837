"""The pictures that lie beside an output: preview.png and routing.png."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from tierscale.pipeline.geometry.grid import Rect, Span
from tierscale.pipeline.output import store
from tierscale.pipeline.output.levels import level_sizes
from tierscale.pipeline.output.ome import MICROSCOPE_COLOURS, shown_colours
from tierscale.pipeline.output.pictures.tile_maps import TileMap, routing_map
from tierscale.pipeline.plan.plan import Plan
from tierscale.pipeline.storage.atomic import write_bytes, write_files
from tierscale.pipeline.storage.paths import Place, place
from tierscale.pipeline.storage.sidecar import sidecar

# Channels of a scientific image that the preview shows.
PREVIEW_CHANNELS = 6
# Values at these percentiles become black and white where values are stretched for a screen.
PERCENTILES = (0.5, 99.5)


def write_pictures(output: str, plan: Plan) -> None:
    """Write the preview and the routing map of a finished output.

    This reads pixels, if few: it is work for a worker, not for the driver.
    """
    folder, picture = sidecar(output), preview(output, plan)
    routing = routing_map(picture, TileMap.of(plan))
    write_files({folder / "preview.png": _png(picture), folder / "routing.png": _png(routing)})


def save_picture(picture: Image.Image, path: str | Place) -> None:
    """Write a PNG whole or not at all."""
    write_bytes(place(str(path)), _png(picture))


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def preview(output: str, plan: Plan) -> Image.Image:
    """The smallest pyramid level as an 8-bit picture.

    Its longer side has at most levels.SMALLEST_LEVEL pixels, whatever the output has.
    """
    pixel_kind = replace(PixelKind.of(plan), colours=shown_colours(store.attributes_of(output)))
    array = store.open_level(output, len(level_sizes(plan.grid.hr_size)) - 1)
    whole = Rect(Span(0, array.shape[1]), Span(0, array.shape[2]))
    channels = slice(PREVIEW_CHANNELS) if pixel_kind.colour == "channels" else slice(None)
    return Image.fromarray(display(store.read_rect(array, whole, output, channels), pixel_kind))


@dataclass(frozen=True, slots=True)
class PixelKind:
    """What the pixels of an output mean.

    colour: kind of channels. has_alpha: whether the last channel is alpha. nodata: value of pixels
    without data, or None. colours: of the channels of a scientific image, RRGGBB, or empty.
    """

    colour: str
    has_alpha: bool = False
    nodata: float | None = None
    colours: tuple[str, ...] = ()

    @classmethod
    def of(cls, plan: Plan) -> "PixelKind":
        """The kind of the pixels of a plan's output."""
        return cls(plan.colour, plan.alpha is not None, plan.value_range.nodata)


def display(pixels: np.ndarray, kind: PixelKind) -> np.ndarray:
    """Pixels (c, h, w) of any type as 8-bit (h, w) or (h, w, 3 or 4) for a screen.

    8-bit colours stay as they are; others are stretched, each channel of a scientific image apart.
    """
    if kind.colour == "channels":
        shown = np.stack([_stretched(channel) for channel in _values(pixels, kind)])
        return _mixed(shown, kind.colours or MICROSCOPE_COLOURS)
    eight = pixels if pixels.dtype == np.uint8 else _eight_bits(pixels, kind)
    if kind.colour == "grey":
        return eight[0]
    if kind.colour == "greya":
        eight = np.concatenate([eight[:1]] * 3 + [eight[1:]])
    return np.ascontiguousarray(eight.transpose(1, 2, 0))  # (c, h, w) -> (h, w, c)


def _values(pixels: np.ndarray, kind: PixelKind) -> np.ndarray:
    """Pixels as float32, NaN where there is no data."""
    values = pixels.astype(np.float32)
    if kind.nodata is not None:
        values[pixels == np.asarray(kind.nodata).astype(pixels.dtype)] = np.nan
    return values


def _mixed(channels: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Channels (c, h, w) of a scientific image, each as light of its own colour; (h, w, 3).

    names: of the colours, RRGGBB.
    """
    colours = [tuple(int(c[i : i + 2], 16) for i in (0, 2, 4)) for c in names]
    mixed = np.zeros((*channels.shape[1:], 3), np.float32)
    for index, channel in enumerate(channels):
        tint = colours[index % len(colours)] if len(channels) > 1 else (255, 255, 255)
        mixed += channel[..., None].astype(np.float32) * np.array(tint, np.float32) / 255
    return np.clip(mixed, 0, 255).astype(np.uint8)


def _eight_bits(pixels: np.ndarray, kind: PixelKind) -> np.ndarray:
    """Channels (c, h, w) of a colour image, stretched together to keep its hue; alpha is not."""
    values = _values(pixels, kind)
    colours = values[:-1] if kind.has_alpha else values
    eight = _stretched(colours.reshape(-1, values.shape[-1])).reshape(colours.shape)
    if not kind.has_alpha:
        return eight
    top = 1.0 if pixels.dtype.kind == "f" else float(np.iinfo(pixels.dtype).max)
    return np.concatenate([eight, np.clip(values[-1:] / top * 255, 0, 255).astype(np.uint8)])


def _stretched(channel: np.ndarray) -> np.ndarray:
    """Values with PERCENTILES brought to 0 and 255; 0 where there is no data."""
    known = channel[np.isfinite(channel)]
    if known.size == 0:
        return np.zeros(channel.shape, np.uint8)
    low, high = np.percentile(known, PERCENTILES)
    scaled = (channel - low) / max(high - low, 1e-12) * 255
    return np.clip(np.nan_to_num(scaled), 0, 255).astype(np.uint8)
