"""Anything that is indexed like a numpy array, as a source: numpy, dask or zarr."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tierscale.pipeline.errors import Refused
from tierscale.pipeline.formats import samples as arithmetic
from tierscale.pipeline.formats.metadata import PhotoMetadata
from tierscale.pipeline.formats.source import (
    STRIP_ROWS,
    Identity,
    Source,
    plain_samples,
    window_strips,
)

# zarr decodes up to this many chunks at once (async.concurrency).
AT_ONCE = 10
# Names of axes whose first letter is not ours, as GDAL, rioxarray and xarray write them.
AXES_BY_NAME = (
    dict.fromkeys(("band", "bands", "wavelength", "wavelengths", "wl", "spectral"), "c")
    | dict.fromkeys(("lat", "latitude", "northing", "row", "rows", "line"), "y")
    | dict.fromkeys(("lon", "longitude", "easting", "col", "column", "columns", "sample"), "x")
)


@dataclass(slots=True)
class ArrayPixels:
    """Pixels of anything that is indexed like a numpy array.

    axes: one letter for each axis, of t, c, z, y, x (others are treated like t).
    at: index on the axes that are not c, y, x.
    """

    array: Any
    axes: str
    at: Mapping[str, int]
    shape: tuple[int, int, int] = field(init=False)
    dtype: np.dtype = field(init=False)
    random_access: bool = field(init=False, default=True)

    def __post_init__(self) -> None:
        sizes = dict(zip(self.axes, self.array.shape, strict=True))
        self.shape = (sizes.get("c", 1), sizes["y"], sizes["x"])
        self.dtype = arithmetic.pixel_type(self.array.dtype, "the array")[0]

    def read(self, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        """A window."""
        spans = {"y": slice(y0, y1), "x": slice(x0, x1), "c": slice(None)}
        window = tuple(spans.get(axis, self.at.get(axis, 0)) for axis in self.axes)
        block = computed(self.array[window])
        left = [axis for axis in self.axes if axis in "cyx"]
        if "c" not in left:
            block, left = block[None], ["c", *left]
        return arithmetic.to_type(block.transpose([left.index(axis) for axis in "cyx"]), self.dtype)

    def strips(self) -> Iterator[tuple[int, np.ndarray]]:
        """Rows from top to bottom, whole rows of chunks at a time where the array has chunks."""
        chunks = getattr(self.array, "chunks", None)
        high = chunks[self.axes.index("y")] if chunks else STRIP_ROWS
        high = high if isinstance(high, int) else high[0]
        yield from window_strips(self, max(1, STRIP_ROWS // high) * high)

    def close(self) -> None:
        """Nothing but a reference is released: the array belongs to whoever made it."""
        self.array = None


def is_dask(array: Any) -> bool:
    """Whether this is a dask array. dask is not imported for the answer: only it makes them."""
    module = sys.modules.get("dask.array")
    return module is not None and isinstance(array, module.Array)


def computed(block: Any) -> np.ndarray:
    """A block of an array in memory.

    One of dask is computed in this thread, unless the caller has chosen a scheduler: the threads
    that read are as many as there are processors, and each would start as many again.
    """
    if not is_dask(block):
        return np.asarray(block)
    import dask

    chosen = dask.config.get("scheduler", None)
    return np.asarray(block.compute(scheduler=chosen or "synchronous"))


def bytes_read_at_once(array: Any) -> int:
    """Bytes of the chunks that are in memory while a window is read; 0 where there are none."""
    if not getattr(array, "chunks", None):
        return 0
    if is_dask(array):  # it lists the lengths of all chunks along each axis
        return math.prod(map(max, array.chunks)) * array.dtype.itemsize
    count = math.prod(-(-size // one) for size, one in zip(array.shape, array.chunks, strict=True))
    # Each is held as it was read and as it is decoded.
    return 2 * min(AT_ONCE, count) * math.prod(array.chunks) * array.dtype.itemsize


def named_axes(names: Sequence[object]) -> str:
    """One letter for each name of an axis: c for channels and bands, y, x, else its first one."""
    lower = [str(name).lower() for name in names]
    return "".join(AXES_BY_NAME.get(name, name[:1]) for name in lower)


def guessed_axes(shape: Sequence[int], uri: str) -> str:
    """Axes of an array that does not name them.

    Two are y, x; of three, one of at most four entries at the end or the front is c. Refused: there
    are fewer or more.
    """
    if len(shape) == 2:
        return "yx"
    if len(shape) == 3:
        last = shape[2] <= 4 < shape[0] or (shape[2] in (1, 3, 4) and shape[0] not in (1, 3, 4))
        return "yxc" if last else "cyx"
    raise Refused(
        f"{uri}: an array of shape {tuple(shape)} without names of axes is not an image; name its"
        " axes or give one plane"
    )


def check_size(shape: tuple[int, int, int], uri: str) -> None:
    """Refuse images without pixels."""
    if 0 in shape:
        raise Refused(
            f"{uri}: an image of {shape} (channels, y, x) has no pixels; check how it was written"
        )


def array_source(
    array: Any, axes: str, uri: str, identify: Callable[[], Identity], notes: tuple[str, ...] = ()
) -> Source:
    """A numpy, dask or zarr array with axes "cyx", "yxc" or "yx" as a source.

    Refused: the axes do not fit the array, or it is no image.
    """
    if sorted(axes) not in (["c", "x", "y"], ["x", "y"]) or len(axes) != array.ndim:
        raise Refused(
            f'{uri}: axes "{axes}" do not fit an array of shape {tuple(array.shape)}; give "cyx",'
            ' "yxc" or "yx"'
        )
    if any(length != length for length in array.shape):
        raise Refused(
            f"{uri}: the lengths {tuple(array.shape)} are not known yet; call"
            " compute_chunk_sizes() on it first"
        )
    _, note = arithmetic.pixel_type(array.dtype, uri)
    pixels = ArrayPixels(array, axes, {})
    check_size(pixels.shape, uri)
    return Source(
        uri=uri,
        pixels=pixels,
        samples=plain_samples(pixels.shape[0]),
        metadata=PhotoMetadata(),
        random_access=True,
        decode_bytes=bytes_read_at_once(array),
        notes=(*notes, *((note,) if note else ())),
        identify=identify,
    )
