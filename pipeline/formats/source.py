"""An opened image as the rest of tierscale sees it.

Pixels are (channels, y, x), upright, in native byte order, read by windows or from top to bottom.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, Protocol

import numpy as np

from tierscale.pipeline.closing import Closing
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.formats.decoding import decoding
from tierscale.pipeline.formats.metadata import PhotoMetadata

Colour = Literal["grey", "rgb", "rgba", "greya", "channels"]
Alpha = Literal["straight", "premultiplied"]
Identity = dict[str, str | int]

# Rows that are handed on at a time by sources that could give any number of them.
STRIP_ROWS = 512
CHANNELS: dict[Colour, int] = {"grey": 1, "greya": 2, "rgb": 3, "rgba": 4}


@dataclass(frozen=True, slots=True)
class Samples:
    """What the channels of an image mean.

    colour: "channels" are greys that have nothing to do with each other, even if there are three.
    alpha: kind of the last channel of "rgba" and "greya", else None.
    bits: significant bits of a sample where the file states fewer than the type has, else None.
    """

    colour: Colour
    alpha: Alpha | None = None
    bits: int | None = None


@dataclass(frozen=True, slots=True)
class Stamp:
    """What changes when a local file is written again; compared before its content is.

    bytes: size. mtime_ns, ctime_ns: last change of content and of inode, nanoseconds since the
    epoch. inode: number of the file in its file system.
    """

    bytes: int
    mtime_ns: int
    ctime_ns: int
    inode: int


class Pixels(Protocol):
    """Pixels as they are stored: final in colour and type, but not yet upright.

    shape: (channels, y, x).
    random_access: whether a window can be read without reading all that comes before it.
    """

    @property
    def shape(self) -> tuple[int, int, int]: ...
    @property
    def dtype(self) -> np.dtype: ...
    @property
    def random_access(self) -> bool: ...

    def read(self, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        """The window as (channels, y1 - y0, x1 - x0). Called only if `random_access`."""

    def strips(self) -> Iterator[tuple[int, np.ndarray]]:
        """(first row, (channels, rows, x)) from top to bottom, covering every row once."""

    def close(self) -> None:
        """Release files and memory."""


@dataclass(kw_only=True)
class Source(Closing):
    """An opened image; a context manager.

    uri: where it lies.
    pixels: reads them, upright.
    samples: what the channels mean.
    metadata: what the file says beside the pixels.
    random_access: whether the cost of a window is in proportion to the window, so that no ingest is
        needed.
    decode_bytes: most memory that reading or ingesting takes beside the window that is read.
    notes: what was chosen or converted, in sentences for a person.
    identify: computes `identity`; it may read the whole file.
    stamp: of the file when it was opened; None where the image is no single local file.
    jpeg_quality: 1 to 100, by the tables of a JPEG; None: it is none.
    """

    uri: str
    pixels: Pixels = field(repr=False)
    samples: Samples
    metadata: PhotoMetadata
    random_access: bool
    decode_bytes: int
    notes: tuple[str, ...]
    identify: Callable[[], Identity] = field(repr=False)
    stamp: Stamp | None = None
    jpeg_quality: int | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, y, x), upright."""
        return self.pixels.shape

    @property
    def dtype(self) -> np.dtype:
        """Type of the pixels, in native byte order."""
        return self.pixels.dtype

    @property
    def colour(self) -> Colour:
        """What the channels are; see Samples."""
        return self.samples.colour

    @property
    def alpha(self) -> Alpha | None:
        """Kind of the last channel; see Samples."""
        return self.samples.alpha

    @property
    def bits(self) -> int | None:
        """Significant bits; see Samples."""
        return self.samples.bits

    @cached_property
    def identity(self) -> Identity:
        """Format, bytes, digest, selection: equal for the same image again. Computed once."""
        with decoding(self.uri):
            return self.identify()

    def read(self, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        """The window [y0, y1) x [x0, x1) as (channels, y1 - y0, x1 - x0), C-contiguous.

        Refused: the window lies partly beyond the image. Damaged: it cannot be decoded.
        """
        _, height, width = self.shape
        if not (0 <= y0 <= y1 <= height and 0 <= x0 <= x1 <= width):
            raise Refused(
                f"{self.uri}: window y {y0}..{y1}, x {x0}..{x1} is not inside the image of {height}"
                f" x {width} pixels"
            )
        with decoding(self.uri):
            if self.pixels.random_access:
                return native(self.pixels.read(y0, y1, x0, x1), self.dtype)
            out = np.empty((self.shape[0], y1 - y0, x1 - x0), self.dtype)
            for y, strip in self.pixels.strips():
                top, bottom = max(y, y0), min(y + strip.shape[1], y1)
                if top < bottom:
                    out[:, top - y0 : bottom - y0] = strip[:, top - y : bottom - y, x0:x1]
                if y + strip.shape[1] >= y1:
                    break
            return out

    def strips(self) -> Iterator[tuple[int, np.ndarray]]:
        """(first row, (channels, rows, x)) from top to bottom, every row once, in bounded memory.

        Damaged: they cannot be decoded.
        """
        with decoding(self.uri):
            for y, strip in self.pixels.strips():
                yield y, native(strip, self.dtype)

    def close(self) -> None:
        """Release files and memory; closing twice does no harm."""
        self.pixels.close()


def native(block: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """`block` as `dtype`, C-contiguous; copied only where it differs."""
    return np.ascontiguousarray(block, dtype=dtype)


def window_strips(pixels: Pixels, rows: int = STRIP_ROWS) -> Iterator[tuple[int, np.ndarray]]:
    """The strips of pixels with random access, `rows` at a time."""
    _, height, width = pixels.shape
    edges = [*range(0, height, rows), height]
    for y0, y1 in itertools.pairwise(edges):
        yield y0, pixels.read(y0, y1, 0, width)


def ingest_bytes(shape: tuple[int, int, int], dtype: np.dtype) -> int:
    """Memory of a band of STRIP_ROWS rows on its way into an ingested copy, in bytes.

    It is held once as read and once as written.
    """
    return 2 * shape[0] * min(STRIP_ROWS, shape[1]) * shape[2] * dtype.itemsize


def plain_samples(channels: int) -> Samples:
    """One channel is grey, three are RGB, four RGBA; any other number are separate greys."""
    plain: dict[int, Samples] = {1: Samples("grey"), 3: Samples("rgb")}
    return plain.get(channels) or (
        Samples("rgba", "straight") if channels == 4 else Samples("channels")
    )
