"""Pixels set upright according to EXIF or TIFF orientation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from tierscale.pipeline.formats.source import Pixels, window_strips


@dataclass(slots=True)
class UprightPixels:
    """Stored pixels set upright by EXIF orientation 1 to 8.

    1 as stored, 2 mirrored, 3 rotated by 180 degrees, 4 mirrored upside down; 5 to 8 exchange rows
    and columns: 5 transposed, 6 to be rotated clockwise, 7 transposed along the other diagonal, 8
    to be rotated anticlockwise.
    """

    inner: Pixels
    orientation: int
    shape: tuple[int, int, int] = field(init=False)
    dtype: np.dtype = field(init=False)
    random_access: bool = field(init=False)
    whole: np.ndarray | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        channels, height, width = self.inner.shape
        self.shape = (channels, width, height) if self.swaps else (channels, height, width)
        self.dtype = self.inner.dtype
        # Stored rows come from top to bottom; only a mirror image can be shown in that order. Any
        # other is held whole.
        self.random_access = self.inner.random_access or self.orientation > 2

    @property
    def swaps(self) -> bool:
        """Whether rows and columns change places."""
        return self.orientation >= 5

    def read(self, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        """The upright window."""
        height, width = self.inner.shape[1:]
        top, bottom, left, right = (x0, x1, y0, y1) if self.swaps else (y0, y1, x0, x1)
        # Whether the picture runs against the stored rows, and against the stored columns.
        down, across = self.orientation in (3, 4, 6, 7), self.orientation in (2, 3, 7, 8)
        if down:
            top, bottom = height - bottom, height - top
        if across:
            left, right = width - right, width - left
        stored = self._stored(top, bottom, left, right)
        stored = stored[:, :: -1 if down else 1, :: -1 if across else 1]
        return stored.transpose(0, 2, 1) if self.swaps else stored

    def _stored(self, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        """A window as stored; from memory where the file can only be read from top to bottom."""
        if self.inner.random_access:
            return self.inner.read(y0, y1, x0, x1)
        if self.whole is None:
            whole = np.empty(self.inner.shape, self.dtype)
            for y, strip in self.inner.strips():
                whole[:, y : y + strip.shape[1]] = strip
            self.whole = whole
        return self.whole[:, y0:y1, x0:x1]

    def strips(self) -> Iterator[tuple[int, np.ndarray]]:
        """Upright rows from top to bottom."""
        if self.orientation <= 2:
            for y, strip in self.inner.strips():
                yield y, strip[:, :, :: -1 if self.orientation == 2 else 1]
            return
        yield from window_strips(self)

    def close(self) -> None:
        """Release the stored pixels."""
        self.whole = None
        self.inner.close()


def upright_bytes(pixels: Pixels, orientation: int) -> int:
    """Memory that setting upright takes, in bytes.

    None, or the whole image where its rows can only be read from top to bottom.
    """
    if pixels.random_access or orientation <= 2:
        return 0
    return int(np.prod(pixels.shape)) * pixels.dtype.itemsize
