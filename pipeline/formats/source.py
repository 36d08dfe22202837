"""An opened image as the rest of tierscale sees it: (channels, y, x), upright, native byte order,
by windows or from top to bottom.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Protocol

import numpy as np

from tierscale.pipeline.errors import Damaged, Refused, one_line
from tierscale.pipeline.formats.metadata import PhotoMetadata

Colour = Literal["grey", "rgb", "rgba", "greya", "channels"]
Alpha = Literal["straight", "premultiplied"]
Identity = dict[str, str | int]

# Rows that are handed on at a time by sources that could give any number of them.
STRIP_ROWS = 512


@dataclass(frozen=True, slots=True)
class Selection:
    """Which image of a file that holds several; what is None is taken as the first.

    series: number of the image, page or frame.
    level: pyramid level, 0 is the largest.
    z, t: plane of a stack, time point.
    """

    series: int | None = None
    level: int = 0
    z: int | None = None
    t: int | None = None


class Pixels(Protocol):
    """Pixels in the place where they are stored: final in colour and type, not yet upright.

    shape: (channels, y, x).
    anywhere: whether a window can be read without reading all that comes before it.
    """

    @property
    def shape(self) -> tuple[int, int, int]: ...
    @property
    def dtype(self) -> np.dtype: ...
    @property
    def anywhere(self) -> bool: ...

    def read(self, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        """The window as (channels, y1 - y0, x1 - x0). Called only if `anywhere`."""

    def strips(self) -> Iterator[tuple[int, np.ndarray]]:
        """(first row, (channels, rows, x)) from top to bottom, covering every row once."""

    def close(self) -> None:
        """Let go of files and memory."""


@dataclass(slots=True)
class Source:
    """An opened image; a context manager.

    uri: where it was found. shape: (channels, y, x), upright. dtype: of the pixels, in native byte
    order. colour: what the channels are; "channels" are greys that have nothing to do with each
    other, even if there are three. alpha: kind of the last channel of "rgba" and "greya". bits:
    significant bits of a sample where the file states fewer than the type has. random_access:
    whether the cost of a window is in proportion to the window, so that no ingest is needed.
    decode_bytes: most memory that reading or ingesting takes beside the window that is asked for.
    identify: computes `identity`, which tells whether this is the same image again; it may read the
    whole file, so only when asked. facts: what the file says beside the pixels. notes: what was
    chosen or converted, in sentences for a person.
    """

    uri: str
    shape: tuple[int, int, int]
    dtype: np.dtype
    colour: Colour
    alpha: Alpha | None
    bits: int | None
    random_access: bool
    decode_bytes: int
    identify: Callable[[], Identity] = field(repr=False)
    facts: PhotoMetadata
    notes: tuple[str, ...]
    pixels: Pixels = field(repr=False)
    identified: Identity | None = field(init=False, default=None, repr=False)

    @property
    def identity(self) -> Identity:
        """Format, bytes, digest, selection: equal for the same image again. Computed once."""
        if self.identified is None:
            with decoding(self.uri):
                self.identified = self.identify()
        return self.identified

    def read(self, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        """The window [y0, y1) x [x0, x1) as (channels, y1 - y0, x1 - x0), C-contiguous; windows
        beyond the image are refused.
        """
        _, height, width = self.shape
        if not (0 <= y0 <= y1 <= height and 0 <= x0 <= x1 <= width):
            raise Refused(
                f"{self.uri}: window y {y0}..{y1}, x {x0}..{x1} is not inside the image of {height}"
                f" x {width} pixels"
            )
        with decoding(self.uri):
            if self.pixels.anywhere:
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
        """(first row, (channels, rows, x)) from top to bottom, every row once, in bounded
        memory.
        """
        with decoding(self.uri):
            for y, strip in self.pixels.strips():
                yield y, native(strip, self.dtype)

    def close(self) -> None:
        """Let go of files and memory; closing twice does no harm."""
        self.pixels.close()

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def native(block: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """`block` as `dtype`, C-contiguous; copied only where it differs."""
    return np.ascontiguousarray(block, dtype=dtype)


@contextmanager
def decoding(uri: str, what: str = "the image") -> Iterator[None]:
    """Decoders fail in many ways; whatever they raise inside this block leaves it as one sentence
    about `uri`.

    Files come from strangers and decoders from a dozen authors, so this boundary takes any
    exception and keeps it as the cause.
    """
    try:
        yield
    except (Refused, Damaged):
        raise
    except MemoryError as error:
        raise Refused(
            f"{uri}: {what} does not fit in memory; choose a machine with more, or a tiled format"
            " such as TIFF"
        ) from error
    except FileNotFoundError as error:
        raise Refused(f"{uri}: there is no such file; check the path") from error
    except ImportError as error:
        raise Refused(
            f"{uri}: opening it takes another package ({one_line(error)}); install it, or copy it"
            " to a local disk"
        ) from error
    except PermissionError as error:
        raise Refused(
            f"{uri}: may not be read ({error.strerror}); check its permissions"
        ) from error
    except Exception as error:
        raise Damaged(
            f"{uri}: {what} cannot be decoded ({one_line(error)}); the file is damaged or cut"
            " short, fetch it again"
        ) from error


def window_strips(pixels: Pixels, rows: int = STRIP_ROWS) -> Iterator[tuple[int, np.ndarray]]:
    """The strips of pixels that can be read anywhere, `rows` at a time."""
    _, height, width = pixels.shape
    edges = [*range(0, height, rows), height]
    for y0, y1 in itertools.pairwise(edges):
        yield y0, pixels.read(y0, y1, 0, width)


def ingest_bytes(shape: tuple[int, int, int], dtype: np.dtype) -> int:
    """Memory that a band of STRIP_ROWS rows takes on its way into the ingested copy: once as read,
    once as written.
    """
    return 2 * shape[0] * min(STRIP_ROWS, shape[1]) * shape[2] * dtype.itemsize


def half_of_memory() -> int:
    """Half the memory of this machine, in bytes: what one decoder may take if nobody says
    otherwise.
    """
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def check_decode(uri: str, needed: int, max_bytes: int | None) -> None:
    """Refuse what takes more than `max_bytes` (None: half of this machine's memory) to decode;
    sizes in bytes. Call before decoding.
    """
    allowed = half_of_memory() if max_bytes is None else max_bytes
    if needed > allowed:
        raise Refused(
            f"{uri}: decoding takes {needed} bytes ({needed / 2**30:.2f} GiB) but only {allowed}"
            f" ({allowed / 2**30:.2f} GiB) are allowed; use --max-memory {needed} or more, or"
            " convert it to a tiled TIFF"
        )
