"""A chunked copy of a source that cannot be read in place, made in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import zarr
from zarr.codecs import ZstdCodec
from zarr.storage import MemoryStore

from tierscale.pipeline.errors import Damaged, Refused, one_line
from tierscale.pipeline.formats.arrays.ingested import INGESTED, copy_attributes
from tierscale.pipeline.formats.source import Source
from tierscale.pipeline.storage.failures import DENIED, storage_failure
from tierscale.pipeline.storage.paths import (
    Place,
    exists,
    place,
    remove_tree,
    sync_folder,
    sync_tree,
)
from tierscale.pipeline.storage.zarr_store import write_nodes, zarr_store

# Called with (rows of chunks done, all).
Progress = Callable[[int, int], None]
# Side of a copy's chunks, in pixels.
CHUNK = 512


def ingest(
    source: Source,
    path: str,
    *,
    chunk: int = CHUNK,
    progress: Progress | None = None,
    replaceable: bool = False,
) -> None:
    """Write `source` as a zarr v3 array (channels, y, x), from which open_image gives the same.

    Chunks are (channels, chunk, chunk). `complete` is written last: a copy without it was
    interrupted, and is made again here. A complete copy of the same source is left as it is.
    Refused: something else lies at `path`, and it is no copy of another source that is
    `replaceable`. Damaged: the copy cannot be written, or the source cannot be decoded.
    """
    total = -(-source.shape[1] // chunk)
    if has_copy(source, path, replaceable):
        if progress:
            progress(total, total)
        return
    try:
        _describe(source, path, chunk, complete=False)
        array = zarr.open_array(zarr_store(path), mode="r+", zarr_format=3)
        for done, (y, band) in enumerate(bands(source, chunk), start=1):
            array[:, y : y + band.shape[1], :] = band
            if progress:
                progress(done, total)
        where = place(path)
        if isinstance(where, Path):
            # A chunk that the power takes would be black pixels in a copy that says it is complete.
            sync_tree(where)
        _describe(source, path, chunk, complete=True)
    except Exception as error:
        remove_tree(place(path))
        if isinstance(error, OSError):
            raise _write_failure(source, path, error) from error
        raise


def _describe(source: Source, path: str, chunk: int, complete: bool) -> None:
    """Write the document of a copy, which says whether it is complete."""

    def make(memory: MemoryStore) -> None:
        zarr.create_array(
            memory,
            shape=source.shape,
            chunks=(source.shape[0], chunk, chunk),
            dtype=source.dtype,
            compressors=ZstdCodec(level=1),
            fill_value=0,
            attributes={INGESTED: {**copy_attributes(source), "complete": complete}},
            dimension_names=("c", "y", "x"),
        )

    write_nodes(path, make)


def _write_failure(source: Source, path: str, error: OSError) -> Exception:
    if error.errno in DENIED:
        return storage_failure(path, error)
    return Damaged(
        f"{path}: the copy of {source.uri} cannot be written ({one_line(error)}); free space or"
        " repair the disk"
    )


def discard(path: Place) -> None:
    """Remove a copy, if it is there.

    What says that it is whole goes first: a worker that comes late must not take missing chunks for
    black pixels, and neither must a run after the power has failed.
    """
    (path / "zarr.json").unlink(missing_ok=True)
    if isinstance(path, Path) and path.is_dir():
        sync_folder(path)
    remove_tree(path)


def rows_done(path: str) -> tuple[int, int]:
    """(rows of chunks that are written, all) of a copy under way; (0, 1) before it is begun.

    Reads names, no pixels.
    """
    try:
        array = zarr.open_array(zarr_store(path), mode="r")
        begun = [int(entry.name) for entry in (place(path) / "c" / "0").iterdir()]
    except FileNotFoundError:
        return 0, 1
    return max(begun, default=0), -(-array.shape[1] // array.chunks[1])


def has_copy(source: Source, path: str, replaceable: bool) -> bool:
    """Whether `path` holds a complete copy of this source.

    Removes what an interrupted ingest left, and a copy of another source if that is `replaceable`.
    Refused: anything else lies there.
    """
    where = place(path)
    if not exists(where) or (where.is_dir() and not next(iter(where.iterdir()), None)):
        return False
    try:
        node = zarr.open(zarr_store(path), mode="r")
        stored = node.attrs.get(INGESTED) if isinstance(node, zarr.Array) else None
    except Exception as error:  # whatever lies there, it is no zarr array of ours
        if replaceable:
            # In a place of our own: a copy whose document the power took.
            remove_tree(where)
            return False
        raise Refused(
            f"{path}: it exists and is not a copy made by tierscale ({one_line(error)}); choose"
            " another place"
        ) from error
    if not isinstance(stored, dict):
        raise Refused(
            f"{path}: it exists and is not a copy made by tierscale; choose another place"
        )
    if stored.get("complete") and stored.get("identity") == source.identity:
        return True
    if stored.get("complete") and not replaceable:
        raise Refused(
            f"{path}: it is a copy of another image, or of this one before it changed; remove it,"
            " or choose another place"
        )
    remove_tree(where)
    return False


def bands(source: Source, rows: int) -> Iterator[tuple[int, np.ndarray]]:
    """(first row, (channels, rows, x)) of exactly `rows` rows, fewer at the bottom.

    Bands share one buffer: each is valid until the next is requested.
    """
    channels, height, width = source.shape
    buffer = np.empty((channels, min(rows, height), width), source.dtype)
    start = 0
    for top, strip in source.strips():
        at = 0
        while at < strip.shape[1]:
            filled = top + at - start
            count = min(strip.shape[1] - at, min(rows, height - start) - filled)
            buffer[:, filled : filled + count] = strip[:, at : at + count]
            at += count
            if filled + count == min(rows, height - start):
                yield start, buffer[:, : filled + count]
                start += filled + count
