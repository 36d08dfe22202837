"""Uncompressed pixels that lie in a file row after row, and the last step from stored samples to
final pixels.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from tierscale.pipeline.errors import Damaged
from tierscale.pipeline.formats import samples as arithmetic
from tierscale.pipeline.formats.source import native, window_strips

Step = Callable[[np.ndarray], np.ndarray]


@dataclass(slots=True)
class Finishing:
    """Turns stored samples (y, x, samples) into final pixels (channels, y, x): `steps` in turn,
    then `dtype`.
    """

    steps: tuple[Step, ...]
    dtype: np.dtype

    def __call__(self, block: np.ndarray) -> np.ndarray:
        for step in self.steps:
            block = step(block)
        return native(arithmetic.to_type(arithmetic.channels_first(block), self.dtype), self.dtype)


@dataclass(slots=True)
class Flat:
    """Uncompressed pixels that lie in the file row after row, so that any window is read straight
    from its place.

    offsets: byte at which each plane begins; together: samples beside each other in a plane.
    stored: type in the file, with its byte order.
    """

    uri: str
    handle: int
    offsets: tuple[int, ...]
    together: int
    stored: np.dtype
    finish: Finishing
    shape: tuple[int, int, int]
    dtype: np.dtype = field(init=False)
    anywhere: bool = field(init=False, default=True)

    def __post_init__(self) -> None:
        self.dtype = self.finish.dtype

    def read(self, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        """A window; only its own bytes are read."""
        width = self.shape[2]
        pixel = self.together * self.stored.itemsize
        out = np.empty(
            (y1 - y0, x1 - x0, len(self.offsets) * self.together), self.stored.newbyteorder("=")
        )
        # Rows of full width follow each other and are read at once.
        step = max(1, y1 - y0) if x1 - x0 == width else 1
        for number, offset in enumerate(self.offsets):
            samples = slice(number * self.together, (number + 1) * self.together)
            for y in range(y0, y1, step):
                wanted = step * (x1 - x0) * pixel
                data = os.pread(self.handle, wanted, offset + (y * width + x0) * pixel)
                if len(data) < wanted:
                    raise Damaged(
                        f"{self.uri}: the file ends inside row {y}; it is cut short, fetch it again"
                    )
                out[y - y0 : y - y0 + step, :, samples] = np.frombuffer(data, self.stored).reshape(
                    step, x1 - x0, self.together
                )
        return self.finish(out)

    def strips(self) -> Iterator[tuple[int, np.ndarray]]:
        """Rows from top to bottom."""
        yield from window_strips(self)

    def close(self) -> None:
        """Close the file."""
        if self.handle >= 0:
            os.close(self.handle)
            self.handle = -1
