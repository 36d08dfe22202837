"""The output: an OME-Zarr 0.5 group of sharded pyramid levels, written one whole shard at a
time.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import dask.array as da
import numpy as np
import zarr
from zarr.codecs import ZstdCodec
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import MemoryStore

from tierscale.pipeline.errors import Damaged, Refused
from tierscale.pipeline.geometry.grid import Rect, Span
from tierscale.pipeline.storage.failures import storage_failure
from tierscale.pipeline.storage.object_path import ObjectPath
from tierscale.pipeline.storage.object_store import as_os_error
from tierscale.pipeline.storage.paths import Place, exists, place, remove_tree
from tierscale.pipeline.storage.sidecar import sidecar
from tierscale.pipeline.storage.zarr_store import zarr_store

# Levels are added until both sides are at most this long.
SMALLEST_LEVEL = 1024
# Inner chunks hold at least this many bytes where the shard allows.
CHUNK_BYTES = 1 << 19


def level_sizes(size: tuple[int, int]) -> list[tuple[int, int]]:
    """Height and width of every pyramid level, full resolution first; each half of the one before,
    rounded up.
    """
    sizes = [size]
    while max(sizes[-1]) > SMALLEST_LEVEL:
        height, width = sizes[-1]
        sizes.append((-(-height // 2), -(-width // 2)))
    return sizes


def chunk_shape(
    shape: Sequence[int],
    shard: tuple[int, int],
    tiles: tuple[int, int],
    dtype: np.dtype,
    colour: str,
) -> tuple[int, int, int]:
    """Inner chunk (c, h, w) of a shard of `tiles` tiles: whole tiles, of CHUNK_BYTES or more where
    the shard allows.
    """
    channels = 1 if colour == "channels" else shape[0]
    for part in sorted({math.gcd(tiles[0], n) for n in range(1, tiles[0] + 1)}, key=lambda n: n):
        for other in sorted({math.gcd(tiles[1], n) for n in range(1, tiles[1] + 1)}):
            height, width = shard[0] // tiles[0] * part, shard[1] // tiles[1] * other
            if channels * height * width * dtype.itemsize >= CHUNK_BYTES:
                return channels, height, width
    return channels, *shard


def quiet_threads() -> None:
    """Keep zarr's own threads few: every worker process has its own, and they would add up."""
    zarr.config.set({"async.concurrency": 2, "threading.max_workers": 2})


def create(
    path: str,
    shape: Sequence[int],
    dtype: np.dtype,
    shard: tuple[int, int],
    chunk: tuple[int, int, int],
    attributes: dict[str, Any],
) -> None:
    """Make the group and the arrays of all levels, still empty."""
    with _errors(path):
        group = zarr.open_group(zarr_store(path), mode="w", zarr_format=3, attributes=attributes)
        for level, (height, width) in enumerate(level_sizes((shape[1], shape[2]))):
            group.create_array(
                str(level),
                shape=(shape[0], height, width),
                dtype=dtype,
                chunks=chunk,
                shards=(shape[0], *shard),
                compressors=ZstdCodec(level=1),
                fill_value=0,
                dimension_names=("c", "y", "x"),
            )


def made(path: str, plan: str, levels: int) -> bool:
    """Whether the arrays of a plan's output are there. Refused: something else is in their place;
    we never delete what is not ours.
    """
    if not place(path).exists():
        return False
    if _plan_of(path) != plan:
        raise Refused(
            f"{path} is not the output that its plan in {sidecar(path)} made; move it away, or"
            " choose another output"
        )
    return all((place(path) / str(level) / "zarr.json").exists() for level in range(levels))


def check_plan(path: str, plan: str) -> None:
    """Damaged: the output is not this plan's any more, because another run began it anew; whoever
    comes late must not write there.
    """
    if _plan_of(path) != plan:
        raise Damaged(
            f"{path} was begun anew by another run while this one was at work; this one leaves it"
            " alone"
        )


def _plan_of(path: str) -> str | None:
    """Digest of the plan that a zarr group says it was made by; None where it says nothing or is no
    group.
    """
    try:
        ours = zarr.open_group(zarr_store(path), mode="r", zarr_format=3).attrs.get("tierscale")
    except (FileNotFoundError, ValueError, zarr.errors.BaseZarrError):
        return None
    return str(ours["plan"]) if isinstance(ours, dict) and "plan" in ours else None


def open_level(path: str, level: int, mode: str = "r") -> zarr.Array:
    """One pyramid level as a zarr array (c, y, x)."""
    with _errors(path):
        array = zarr.open_array(zarr_store(path), path=str(level), mode=mode, zarr_format=3)
    return array


def as_dask(path: str, level: int = 0) -> da.Array:
    """One pyramid level as a dask array (c, y, x) for people's own analysis; its chunks are the
    inner chunks of the store.
    """
    return da.from_zarr(open_level(path, level))


def shard_keys(size: tuple[int, int], shard: tuple[int, int]) -> Iterator[tuple[int, int, int]]:
    """Level, row and column of every shard of an output of `size`, full resolution first; sizes in
    output pixels.
    """
    for level, (height, width) in enumerate(level_sizes(size)):
        for y in range(-(-height // shard[0])):
            for x in range(-(-width // shard[1])):
                yield level, y, x


def shard_rect(array: zarr.Array, shard: tuple[int, int]) -> Rect:
    """The pixels of one shard of a level, clipped to the image."""
    height, width = array.shards[1:] if array.shards else array.chunks[1:]
    (y, x), (_, rows, columns) = shard, array.shape
    return Rect(
        Span(y * height, min((y + 1) * height, rows)),
        Span(x * width, min((x + 1) * width, columns)),
    )


def write_shard(path: str, level: int, shard: tuple[int, int], pixels: np.ndarray) -> None:
    """Write one whole shard; pixels (c, H, W) are those of shard_rect. Damaged: the store cannot
    take them.

    The shard is encoded in memory, also where the image's edge cuts it, and put under its name in
    one piece. Writing the pixels through the array would read the old shard first wherever an edge
    leaves it incomplete, and could not replace one that is damaged.
    """
    array = open_level(path, level, "r+")
    rect = shard_rect(array, shard)
    expected = (array.shape[0], rect.y.length, rect.x.length)
    if pixels.shape != expected:
        raise ValueError(
            f"shard {shard} of level {level} has {expected} pixels, not {pixels.shape}; shards are"
            " written whole"
        )
    content = encode_shard(array, pixels)
    key = array.store_path / array.metadata.encode_chunk_key((0, *shard))
    with _errors(path):
        sync(key.set(content))


def encode_shard(array: zarr.Array, pixels: np.ndarray) -> Buffer:
    """The bytes of one shard of `array` that holds `pixels` (c, H, W), with zeros beyond them."""
    assert array.shards is not None
    full = pixels
    if pixels.shape != array.shards:
        full = np.zeros(array.shards, array.dtype)
        full[:, : pixels.shape[1], : pixels.shape[2]] = pixels
    memory = MemoryStore()
    one = zarr.create_array(
        memory,
        shape=array.shards,
        dtype=array.dtype,
        chunks=array.chunks,
        shards=array.shards,
        compressors=array.compressors,
        fill_value=array.fill_value,
        config={"write_empty_chunks": True},
    )
    one[:] = full
    content = sync(memory.get("c/0/0/0", default_buffer_prototype()))
    assert content is not None
    return content


def shards_of(path: str, level: int) -> tuple[int, int]:
    """Rows and columns of shards of a level."""
    array = open_level(path, level)
    assert array.shards is not None
    return -(-array.shape[1] // array.shards[1]), -(-array.shape[2] // array.shards[2])


def read_shard(path: str, level: int, shard: tuple[int, int]) -> np.ndarray:
    """The pixels of one shard (c, H, W), clipped to the image. Damaged: they cannot be decoded."""
    array = open_level(path, level)
    return read_rect(
        array, shard_rect(array, shard), f"{path} level {level} shard {shard[0]}.{shard[1]}"
    )


def read_rect(
    array: zarr.Array, rect: Rect, name: str, channels: slice = slice(None)
) -> np.ndarray:
    """Pixels (c, h, w) of a level."""
    try:
        return np.asarray(array[(channels, *rect.slices)])
    # codecs raise what they like on damaged bytes: RuntimeError, ValueError, zlib.error,
    # struct.error
    except Exception as error:
        raise Damaged(
            f"{name} cannot be read back ({type(error).__name__}:"
            f" {str(error).splitlines()[0] if str(error) else 'no reason given'}); tierscale verify"
            " --heal does it again"
        ) from error


def check_ours(path: str) -> None:
    """Refuse to replace what lies at `path` if it does not say that we made it."""
    if exists(place(path)) and _plan_of(path) is None:
        raise Refused(
            f"{path} was not made by tierscale and is left alone; choose another output, or move it"
            " away"
        )


def remove(path: str, keep: Sequence[str]) -> None:
    """Delete an output of ours and what lies in its sibling folder but the names in `keep`.
    Refused: it does not say that it is ours.
    """
    check_ours(path)
    output, folder = place(path), sidecar(path)
    with _errors(path):
        if isinstance(output, ObjectPath):
            # What says that it is ours goes last.
            remove_tree(output, last="zarr.json")
        elif output.exists():
            # Renamed first: half of an output under its name would not be known as ours any more.
            remove_tree(folder / "replaced")
            output.rename(str(folder / "replaced"))
        entries: list[Place] = [*folder.iterdir()] if folder.exists() else []
        for entry in entries:
            if entry.name not in keep:
                remove_tree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


def bytes_at(path: str) -> int:
    """Bytes of all files of an output."""
    where = place(path)
    if isinstance(where, ObjectPath):
        return sum(entry.bytes for entry in where.listed())
    return sum(file.stat().st_size for file in where.rglob("*") if file.is_file())


class _errors:
    """Turn what storage raises into one sentence."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind, error, trace) -> None:  # type: ignore[no-untyped-def]
        error = as_os_error(error, self.path) or error
        if isinstance(error, FileNotFoundError):
            raise Refused(f"{self.path} does not exist or is no zarr of ours") from error
        if isinstance(error, OSError):
            raise storage_failure(self.path, error) from error
