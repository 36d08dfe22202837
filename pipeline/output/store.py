"""The OME-Zarr 0.5 group of an output: sharded levels, written one whole shard at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import zarr
from zarr.abc.buffer import Buffer
from zarr.codecs import ZstdCodec
from zarr.storage import MemoryStore

from tierscale.pipeline.errors import Damaged, Refused, Unreachable
from tierscale.pipeline.geometry.grid import Rect, Span
from tierscale.pipeline.output.levels import StoreLayout
from tierscale.pipeline.storage.atomic import write_bytes
from tierscale.pipeline.storage.failures import storage_failure
from tierscale.pipeline.storage.object_path import ObjectPath
from tierscale.pipeline.storage.object_store import as_os_error
from tierscale.pipeline.storage.paths import place, remove_tree
from tierscale.pipeline.storage.zarr_store import write_nodes, zarr_store

# What the attributes of an output say where its smaller levels are means of what is valid.
VALID = "valid"


def quiet_threads() -> None:
    """Keep zarr's own threads few: every worker process has its own, and they would add up."""
    zarr.config.set({"async.concurrency": 2, "threading.max_workers": 2})


def create(
    path: str,
    layout: StoreLayout,
    attributes: dict[str, Any],
    of_levels: Sequence[dict[str, Any]] = (),
) -> None:
    """Create the group with its attributes and the arrays of all levels, still empty.

    What lies there is removed. of_levels: attributes of the arrays, or none.
    """

    def make(memory: MemoryStore) -> None:
        group = zarr.open_group(memory, mode="w", zarr_format=3, attributes=attributes)
        for level, size in enumerate(layout.levels):
            group.create_array(
                str(level),
                shape=(layout.shape[0], *size),
                dtype=layout.dtype,
                chunks=layout.chunk,
                shards=(layout.shape[0], *layout.shard),
                compressors=ZstdCodec(level=1),
                fill_value=0 if layout.nodata is None else layout.nodata,
                dimension_names=("c", "y", "x"),
                attributes=of_levels[level] if of_levels else {},
            )

    with storage_errors(path):
        # What is begun again must be known as ours after a kill at any point of this.
        remove_tree(place(path), last="zarr.json")
        write_nodes(path, make)


def averages_valid(path: str) -> bool:
    """Whether pixels without data, and colours that are clear, do not count in smaller levels.

    They count in all levels of an output that an earlier version began.
    """
    ours = attributes_of(path).get("tierscale")
    return isinstance(ours, dict) and ours.get("pyramid") == VALID


def attributes_of(path: str) -> dict[str, Any]:
    """Attributes of a zarr group; empty: there is none."""
    try:
        return dict(zarr.open_group(zarr_store(path), mode="r", zarr_format=3).attrs)
    except (FileNotFoundError, ValueError, zarr.errors.BaseZarrError):
        return {}


def open_level(path: str, level: int, mode: str = "r") -> zarr.Array:
    """One pyramid level as a zarr array (c, y, x). Refused: there is none."""
    with storage_errors(path):
        array = zarr.open_array(zarr_store(path), path=str(level), mode=mode, zarr_format=3)
    return array


def shard_rect(array: zarr.Array, shard: tuple[int, int]) -> Rect:
    """The pixels of one shard of a level, clipped to the image."""
    height, width = _shard_shape(array)[1:]
    (y, x), (_, rows, columns) = shard, array.shape
    return Rect(
        Span(y * height, min((y + 1) * height, rows)),
        Span(x * width, min((x + 1) * width, columns)),
    )


def write_shard(
    path: str,
    level: int,
    shard: tuple[int, int],
    pixels: np.ndarray,
    encoded: Callable[[], None] = lambda: None,
) -> int:
    """Write one whole shard, and wait for the disk; the bytes that it takes there.

    pixels (c, H, W) are those of shard_rect(). encoded: called when all computing is done and only
    the disk is left to wait for. Damaged: storage failed. The shard is encoded in
    memory, also where the image's edge cuts it, and stored under its name in one piece. Writing
    through the array would first read the old shard wherever an edge leaves it incomplete, and
    could not replace a damaged one.
    """
    array = open_level(path, level, "r+")
    rect = shard_rect(array, shard)
    expected = (array.shape[0], rect.y.length, rect.x.length)
    if pixels.shape != expected:
        raise ValueError(
            f"shard {shard} of level {level} has shape {expected}, not {pixels.shape}; shards are"
            " written whole"
        )
    content = encode_shard(array, pixels)
    key = array.store_path / array.metadata.encode_chunk_key((0, *shard))
    encoded()
    with storage_errors(path):
        write_bytes(place(path) / key.path, content.as_numpy_array().data)
    return len(content)


def encode_shard(array: zarr.Array, pixels: np.ndarray) -> Buffer:
    """The bytes of one shard of `array` that holds `pixels` (c, H, W), with zeros beyond them."""
    shape = _shard_shape(array)
    full = pixels
    if pixels.shape != shape:
        full = np.zeros(shape, array.dtype)
        full[:, : pixels.shape[1], : pixels.shape[2]] = pixels
    stored: dict[str, Buffer] = {}
    one = zarr.create_array(
        MemoryStore(stored),
        shape=shape,
        dtype=array.dtype,
        chunks=array.chunks,
        shards=shape,
        compressors=array.compressors,
        fill_value=array.fill_value,
        config={"write_empty_chunks": True},
    )
    one[:] = full
    if "c/0/0/0" not in stored:
        raise ValueError(f"zarr wrote no bytes for a shard of {shape} {array.dtype}")
    return stored["c/0/0/0"]


def shards_of(path: str, level: int) -> tuple[int, int]:
    """Rows and columns of shards of a level."""
    array = open_level(path, level)
    height, width = _shard_shape(array)[1:]
    return -(-array.shape[1] // height), -(-array.shape[2] // width)


def _shard_shape(array: zarr.Array) -> tuple[int, ...]:
    """Shape (c, H, W) of what is written at a time: a shard, or a chunk without shards."""
    return array.shards or array.chunks


def read_shard(path: str, level: int, shard: tuple[int, int]) -> np.ndarray:
    """The pixels of one shard (c, H, W), clipped to the image. Damaged: they cannot be decoded."""
    array = open_level(path, level)
    return read_rect(
        array, shard_rect(array, shard), f"{path} level {level} shard {shard[0]}.{shard[1]}"
    )


def read_rect(
    array: zarr.Array, rect: Rect, name: str, channels: slice = slice(None)
) -> np.ndarray:
    """Pixels (c, h, w) of a level, called `name` in errors.

    Unreachable: the store refuses or does not answer. Damaged: they cannot be decoded.
    """
    try:
        return np.asarray(array[(channels, *rect.slices)])
    # Codecs raise many kinds on damaged bytes: RuntimeError, ValueError, zlib.error, struct.error.
    except Exception as error:
        refused = as_os_error(error, name)
        if refused is not None:
            raise Unreachable(
                f"{name} cannot be read ({refused.strerror}); check the object store and its"
                " credentials, then run the same command again"
            ) from error
        reason = str(error).splitlines()[0] if str(error) else "no reason given"
        raise Damaged(
            f"{name} cannot be read back ({type(error).__name__}: {reason}); tierscale verify"
            " --heal writes it again"
        ) from error


def bytes_at(path: str) -> int:
    """Bytes of all files of an output."""
    where = place(path)
    if isinstance(where, ObjectPath):
        return sum(entry.bytes for entry in where.listed())
    return sum(file.stat().st_size for file in where.rglob("*") if file.is_file())


@contextmanager
def storage_errors(path: str) -> Iterator[None]:
    """Raise what storage raises for `path` as Refused, DiskFull or Damaged, in one sentence."""
    try:
        yield
    except Exception as raised:
        error = as_os_error(raised, path) or raised
        if isinstance(error, FileNotFoundError):
            raise Refused(
                f"{path} does not exist or is not a zarr group of tierscale; name an output of"
                " tierscale upscale"
            ) from raised
        if isinstance(error, OSError):
            raise storage_failure(path, error) from raised
        raise
