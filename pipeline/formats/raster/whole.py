"""A picture that is decoded whole and then held."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from tierscale.pipeline.formats.source import window_strips


@dataclass(slots=True)
class WholePixels:
    """Pixels of a picture that `decode` gives, (channels, y, x), when it is first read."""

    shape: tuple[int, int, int]
    dtype: np.dtype
    decode: Callable[[], np.ndarray]
    whole: np.ndarray | None = field(init=False, default=None)
    random_access: bool = field(init=False, default=True)

    def read(self, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        """A window of the picture. ValueError: the picture has not the shape that was announced."""
        if self.whole is None:
            whole = self.decode()
            if whole.shape != self.shape:
                raise ValueError(f"it announces {self.shape} samples but holds {whole.shape}")
            self.whole = whole
        return self.whole[:, y0:y1, x0:x1]

    def strips(self) -> Iterator[tuple[int, np.ndarray]]:
        """Rows from top to bottom."""
        yield from window_strips(self)

    def close(self) -> None:
        """Release the picture."""
        self.whole = None
