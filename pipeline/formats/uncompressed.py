"""Uncompressed pixels read in place, and the last step from stored samples to final pixels."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from tierscale.pipeline.errors import Damaged
from tierscale.pipeline.formats import samples as arithmetic
from tierscale.pipeline.formats.source import native, window_strips

# Stored samples (y, x, samples) to others of the same rows and columns.
Step = Callable[[np.ndarray], np.ndarray]


@dataclass(slots=True)
class Conversion:
    """Stored samples (y, x, samples) to final pixels (channels, y, x): `steps`, then `dtype`."""

    steps: tuple[Step, ...]
    dtype: np.dtype

    def __call__(self, block: np.ndarray) -> np.ndarray:
        for step in self.steps:
            block = step(block)
        return native(arithmetic.to_type(arithmetic.channels_first(block), self.dtype), self.dtype)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where uncompressed samples lie in a file.

    offsets: byte at which each plane begins, in which row follows row.
    together: samples beside each other in a plane.
    stored: type of a sample in the file, with its byte order.
    """

    offsets: tuple[int, ...]
    together: int
    stored: np.dtype


@dataclass(slots=True, kw_only=True)
class UncompressedPixels:
    """Pixels of which any window is read straight from its place in the file.

    handle: file descriptor, closed by `close`. shape: (channels, y, x).
    """

    uri: str
    handle: int
    layout: Layout
    convert: Conversion
    shape: tuple[int, int, int]
    dtype: np.dtype = field(init=False)
    random_access: bool = field(init=False, default=True)

    def __post_init__(self) -> None:
        self.dtype = self.convert.dtype

    def read(self, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        """A window; only its own bytes are read. Damaged: the file ends before them."""
        width, layout = self.shape[2], self.layout
        samples = len(layout.offsets) * layout.together
        out = np.empty((y1 - y0, x1 - x0, samples), layout.stored.newbyteorder("="))
        # Rows of full width follow each other and are read at once.
        step = max(1, y1 - y0) if x1 - x0 == width else 1
        for number, offset in enumerate(layout.offsets):
            plane = slice(number * layout.together, (number + 1) * layout.together)
            for y in range(y0, y1, step):
                block = self._rows(offset, y, (step, x0, x1))
                out[y - y0 : y - y0 + step, :, plane] = block
        return self.convert(out)

    def _rows(self, offset: int, y: int, part: tuple[int, int, int]) -> np.ndarray:
        """(rows, x1 - x0, samples) from row `y` of the plane at `offset`; part: rows, x0, x1."""
        rows, x0, x1 = part
        layout = self.layout
        pixel = layout.together * layout.stored.itemsize
        wanted = rows * (x1 - x0) * pixel
        data = os.pread(self.handle, wanted, offset + (y * self.shape[2] + x0) * pixel)
        if len(data) < wanted:
            raise Damaged(
                f"{self.uri}: the file ends inside row {y}; it is cut short, fetch it again"
            )
        return np.frombuffer(data, layout.stored).reshape(rows, x1 - x0, layout.together)

    def strips(self) -> Iterator[tuple[int, np.ndarray]]:
        """Rows from top to bottom."""
        yield from window_strips(self)

    def close(self) -> None:
        """Close the file."""
        if self.handle >= 0:
            os.close(self.handle)
            self.handle = -1
