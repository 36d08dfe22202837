"""Where the shards of an enlarged array go: memory, a zarr array, or a new zarr at a path."""

import math
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Protocol, TypeAlias, TypeVar

import numpy as np
import zarr
from zarr.abc.buffer import Buffer
from zarr.codecs import ZstdCodec
from zarr.storage import MemoryStore

from tierscale.pipeline.errors import Damaged, DiskFull, Refused
from tierscale.pipeline.geometry.grid import Rect
from tierscale.pipeline.output.levels import chunk_side
from tierscale.pipeline.plan.plan import Draft
from tierscale.pipeline.run.resources import check_free
from tierscale.pipeline.storage.atomic import write_bytes
from tierscale.pipeline.storage.failures import storage_failure
from tierscale.pipeline.storage.object_store import as_os_error
from tierscale.pipeline.storage.paths import Place, exists, place, remove_tree
from tierscale.pipeline.storage.zarr_store import zarr_store

T = TypeVar("T")

METADATA = "zarr.json"
# Place of c, y and x in the axes of an array.
ORDER = {"cyx": (0, 1, 2), "yxc": (1, 2, 0), "yx": (1, 2)}


def in_order(each: Sequence[T], axes: str) -> tuple[T, ...]:
    """What belongs to c, y and x, in the order of the axes; "yx" leaves the first out."""
    return tuple(each[index] for index in ORDER[axes])


def arranged(pixels: np.ndarray, axes: str) -> np.ndarray:
    """Pixels (c, H, W) with the axes of an array: a view."""
    return pixels[0] if axes == "yx" else pixels.transpose(ORDER[axes])


class Target(Protocol):
    """What keeps the shards of a result; several threads write to it."""

    def write(self, rect: Rect, pixels: np.ndarray) -> None:
        """Keep the pixels (c, H, W) of a rectangle. Damaged: they cannot be kept."""
        ...


class InMemory:
    """A numpy array with the given axes."""

    def __init__(self, draft: Draft, axes: str) -> None:
        self.axes = axes
        self.array = np.zeros(in_order(draft.hr_shape, axes), np.dtype(draft.dtype))

    def write(self, rect: Rect, pixels: np.ndarray) -> None:
        """Shards do not overlap, so threads do not meet."""
        self.array[in_order((slice(None), *rect.slices), self.axes)] = arranged(pixels, self.axes)


class ZarrArray:
    """A zarr array of the caller's, in whatever chunks. Refused: it cannot hold the result."""

    def __init__(self, array: zarr.Array, draft: Draft, axes: str) -> None:
        self.array, self.axes, self.name = array, axes, str(array.store_path)
        shape, dtype = in_order(draft.hr_shape, axes), np.dtype(draft.dtype)
        if array.shape != shape or array.dtype != dtype:
            raise Refused(
                f"out has shape {array.shape} and type {array.dtype}, but the result has shape"
                f" {shape} and type {dtype}; give an array of these, or a path"
            )
        if array.read_only:
            raise Refused(f"out ({self.name}) is open for reading only; open it with mode='r+'")
        unit = array.shards or array.chunks
        shard = in_order((draft.shape[0], *draft.grid.hr_shard), axes)
        # Whether no two shards lie in one chunk. Two threads in one chunk lose data without an
        # error, because each writes back what it read of the other's part.
        self._apart = all(
            own % chunk == 0 or own >= length
            for own, chunk, length in zip(shard, unit, shape, strict=True)
        )
        self._one_at_a_time = threading.Lock()
        # A chunk that is written in parts is read, changed and encoded again.
        self.bytes_beside = 0 if self._apart else 3 * math.prod(unit) * dtype.itemsize

    def write(self, rect: Rect, pixels: np.ndarray) -> None:
        """Damaged: the store does not take them."""
        where = in_order((slice(None), *rect.slices), self.axes)
        with nullcontext() if self._apart else self._one_at_a_time, storing(self.name):
            self.array[where] = arranged(pixels, self.axes)

    def finish(self) -> zarr.Array:
        """The array."""
        return self.array

    def abandon(self) -> None:
        """Nothing: the array is the caller's, with what was written to it."""


class NewZarr:
    """A zarr array that is made at a path, in shards like those of an output.

    Its metadata comes last: what is not finished cannot be opened, and so not be taken for a
    result. Refused: something is there, or it cannot fit on the disk.
    """

    bytes_beside = 0

    def __init__(self, path: str, draft: Draft, axes: str) -> None:
        self.path = path if "://" in path else os.path.abspath(path)
        self.axes, self.shape, self.dtype = axes, draft.hr_shape, np.dtype(draft.dtype)
        self._shard = (draft.shape[0], *draft.grid.hr_shard)
        side = chunk_side(draft.grid.hr_shard)
        self._chunk = (1, side, side)
        self._place: Place = place(self.path)
        if exists(self._place):
            raise Refused(
                f"out {self.path} exists; give another path, or the zarr array that is there"
            )
        check_free(self.path, math.prod(self.shape) * self.dtype.itemsize)
        try:
            self._place.mkdir(parents=True, exist_ok=False)
        except OSError as error:
            raise storage_failure(self.path, error) from error

    def write(self, rect: Rect, pixels: np.ndarray) -> None:
        """Damaged: the store does not take them."""
        full = pixels
        if pixels.shape != self._shard:
            full = np.zeros(self._shard, self.dtype)
            full[:, : pixels.shape[1], : pixels.shape[2]] = pixels
        stored: dict[str, Buffer] = {}
        self._create(stored, self._shard)[:] = arranged(full, self.axes)
        (content,) = (value for key, value in stored.items() if key != METADATA)
        index = (0, rect.y.start // self._shard[1], rect.x.start // self._shard[2])
        self._put("/".join(["c", *map(str, in_order(index, self.axes))]), content)

    def finish(self) -> zarr.Array:
        """The whole array, open for reading and writing."""
        stored: dict[str, Buffer] = {}
        self._create(stored, self.shape)
        self._put(METADATA, stored[METADATA])
        return zarr.open_array(zarr_store(self.path), mode="r+")

    def abandon(self) -> None:
        """Take away what was written."""
        remove_tree(self._place)

    def _create(self, stored: dict[str, Buffer], shape: tuple[int, int, int]) -> zarr.Array:
        """An array of this layout in memory."""
        return zarr.create_array(
            MemoryStore(stored),
            shape=in_order(shape, self.axes),
            dtype=self.dtype,
            chunks=in_order(self._chunk, self.axes),
            shards=in_order(self._shard, self.axes),
            compressors=ZstdCodec(level=1),
            fill_value=0,
            dimension_names=tuple(self.axes),
            config={"write_empty_chunks": True},
        )

    def _put(self, key: str, content: Buffer) -> None:
        target = self._place
        for part in key.split("/"):
            target = target / part
        with storing(self.path):
            write_bytes(target, content.to_bytes())


StoredTarget: TypeAlias = ZarrArray | NewZarr


def open_target(out: zarr.Array | str | os.PathLike[str], draft: Draft, axes: str) -> StoredTarget:
    """What `out=` asks for. Refused: it is neither a zarr array nor a path, or cannot be used."""
    if isinstance(out, zarr.Array):
        return ZarrArray(out, draft, axes)
    if isinstance(out, str | os.PathLike):
        return NewZarr(os.fspath(out).removeprefix("file://"), draft, axes)
    raise Refused(
        f"out is a {type(out).__name__}, and results go to a zarr array or a path; give one of them"
    )


@contextmanager
def storing(name: str) -> Iterator[None]:
    """Raise what storage raises for `name`, when work has begun, as DiskFull or Damaged."""
    try:
        yield
    except Exception as raised:
        error = as_os_error(raised, name) or raised
        failure = storage_failure(name, error) if isinstance(error, OSError) else error
        if isinstance(failure, DiskFull):
            raise DiskFull(
                f"the disk that holds {name} is full; free some space, and begin again"
            ) from raised
        if isinstance(failure, Refused):  # it could be written when work began
            raise Damaged(str(failure)) from raised
        if failure is raised:
            raise
        raise failure from raised
