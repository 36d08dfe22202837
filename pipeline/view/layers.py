"""The pixels of what is shown, by windows of its pyramid levels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import numpy as np
import zarr
from PIL import Image

from tierscale.pipeline.geometry.grid import Rect, Span
from tierscale.pipeline.output import store
from tierscale.pipeline.view.colours import Screen

# Source pixels that are read at once, about; windows of small levels are read in bands.
READ_PIXELS = 1 << 23
# Source pixels around a window that a bicubic kernel looks at, and one more.
MARGIN = 3

Read = Callable[[int, int, int, int], np.ndarray]


class Layer(Protocol):
    """One of the pictures that are compared; all have the sizes of the result's levels."""

    def window(self, level: int, rect: Rect) -> np.ndarray:
        """What a window of a level looks like: uint8 (h, w), (h, w, 3) or (h, w, 4)."""
        ...


@dataclass(frozen=True, slots=True)
class Stored:
    """An output's own levels. path: of it, for errors. screen: how its values are shown."""

    path: str
    levels: Sequence[zarr.Array]
    screen: Screen

    def window(self, level: int, rect: Rect) -> np.ndarray:
        """As Layer. Damaged, Unreachable: it cannot be read."""
        return self.screen.show(store.read_rect(self.levels[level], rect, self.path))


@dataclass(frozen=True, slots=True)
class Original:
    """The source in the pixels of the result.

    read: gives source pixels (c, h, w) of a window y0, y1, x0, x1. size: of the source, height and
    width. scale: of the result. smooth: enlarged by Pillow's bicubic kernel, else every source
    pixel as a square. Smaller levels are means of source pixels.
    """

    read: Read
    size: tuple[int, int]
    scale: Fraction
    smooth: bool
    screen: Screen

    def window(self, level: int, rect: Rect) -> np.ndarray:
        """As Layer."""
        # Source pixels for each pixel of the level.
        step = 2**level / self.scale
        wide = max(1, math.ceil(rect.x.length * step))
        rows = max(1, int(READ_PIXELS / wide / step))
        bands = [
            self._band(step, Rect(Span(y, min(y + rows, rect.y.stop)), rect.x))
            for y in range(rect.y.start, rect.y.stop, rows)
        ]
        return bands[0] if len(bands) == 1 else np.concatenate(bands)

    def _band(self, step: Fraction, rect: Rect) -> np.ndarray:
        """A window of a level whose pixels are `step` source pixels long."""
        height, width = self.size
        top, bottom = (edge * step for edge in (rect.y.start, rect.y.stop))
        left, right = (edge * step for edge in (rect.x.start, rect.x.stop))
        y0, y1 = max(0, math.floor(top) - MARGIN), min(height, math.ceil(bottom) + MARGIN)
        x0, x1 = max(0, math.floor(left) - MARGIN), min(width, math.ceil(right) + MARGIN)
        shown = self.screen.show(self.read(y0, y1, x0, x1))
        # The last pixel of a small level may reach beyond the source: its edge goes on there.
        beyond = [(0, max(0, math.ceil(bottom) - y1)), (0, max(0, math.ceil(right) - x1))]
        shown = np.pad(shown, [*beyond, (0, 0)][: shown.ndim], mode="edge")
        kernel = Image.Resampling.BICUBIC if self.smooth else Image.Resampling.NEAREST
        return resized(
            shown,
            (rect.x.length, rect.y.length),
            Image.Resampling.BOX if step >= 1 else kernel,
            (float(left - x0), float(top - y0), float(right - x0), float(bottom - y0)),
        )


def resized(
    shown: np.ndarray,
    size: tuple[int, int],
    kernel: Image.Resampling,
    box: tuple[float, float, float, float],
) -> np.ndarray:
    """A part of a picture (h, w), (h, w, 3 or 4) in another size (width, height).

    box: left, top, right, bottom. By float32, where Pillow rounds and clips only once; with alpha
    by 8 bits, where it weights colours by their opacity.
    """
    if shown.ndim == 3 and shown.shape[2] == 4:
        return np.asarray(Image.fromarray(shown).resize(size, kernel, box=box))
    channels = [shown] if shown.ndim == 2 else [shown[..., at] for at in range(shown.shape[2])]
    made = [
        np.asarray(Image.fromarray(channel.astype(np.float32)).resize(size, kernel, box=box))
        for channel in channels
    ]
    values = np.clip(np.rint(made), 0, 255).astype(np.uint8)
    return values[0] if shown.ndim == 2 else np.ascontiguousarray(values.transpose(1, 2, 0))
