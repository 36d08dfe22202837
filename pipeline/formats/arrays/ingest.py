"""A chunked copy of a source that cannot be read in place, made from top to bottom in bounded
memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import zarr
from zarr.codecs import ZstdCodec

from tierscale.pipeline.errors import Damaged, Refused, one_line
from tierscale.pipeline.formats.arrays.ingested import INGESTED
from tierscale.pipeline.formats.source import Source
from tierscale.pipeline.storage.failures import DENIED, storage_failure
from tierscale.pipeline.storage.paths import Place, exists, place, remove_tree
from tierscale.pipeline.storage.zarr_store import zarr_store

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
    """Write `source` as a zarr v3 array (channels, y, x) of chunks (channels, chunk, chunk), from
    which open_image gives the same source.

    `complete` is written last: a copy without it was interrupted, and is made again here. A
    complete copy of the same source is left as it is. Anything else at `path` is refused, but for a
    copy of another source where that is `replaceable`. progress: called with (rows of chunks done,
    all).
    """
    total = -(-source.shape[1] // chunk)
    if already(source, path, replaceable):
        if progress:
            progress(total, total)
        return
    kept = described(source)
    try:
        array = zarr.create_array(
            zarr_store(path),
            shape=source.shape,
            chunks=(source.shape[0], chunk, chunk),
            dtype=source.dtype,
            compressors=ZstdCodec(level=1),
            fill_value=0,
            attributes={INGESTED: {**kept, "complete": False}},
            dimension_names=("c", "y", "x"),
        )
        for done, (y, band) in enumerate(bands(source, chunk), start=1):
            array[:, y : y + band.shape[1], :] = band
            if progress:
                progress(done, total)
        array.update_attributes({INGESTED: {**kept, "complete": True}})
    except Exception as error:
        remove_tree(place(path))
        if isinstance(error, OSError):
            if error.errno in DENIED:
                raise storage_failure(path, error) from error
            raise Damaged(
                f"{path}: the copy of {source.uri} cannot be written ({one_line(error)}); free"
                " space or mend the disk"
            ) from error
        raise


def discard(path: Place) -> None:
    """Take a copy away, if it is there. What says that it is whole goes first: a worker that comes
    late must not take missing chunks for black pixels.
    """
    (path / "zarr.json").unlink(missing_ok=True)
    remove_tree(path)


def rows_done(path: str) -> tuple[int, int]:
    """(rows of chunks that are written, all) of a copy under way in a local folder; (0, 1) before
    it is begun. Reads names, no pixels.
    """
    try:
        array = zarr.open_array(zarr_store(path), mode="r")
        begun = [int(entry.name) for entry in (place(path) / "c" / "0").iterdir()]
    except FileNotFoundError:
        return 0, 1
    return max(begun, default=0), -(-array.shape[1] // array.chunks[1])


def described(source: Source) -> dict[str, Any]:
    """What a copy remembers of its source, in the types of JSON."""
    return {
        "colour": source.colour,
        "alpha": source.alpha,
        "bits": source.bits,
        "facts": source.facts.to_json(),
        "notes": list(source.notes),
        "identity": source.identity,
    }


def already(source: Source, path: str, replaceable: bool) -> bool:
    """Whether `path` holds a complete copy of this source. Clears away what an interrupted ingest
    left, and a copy of another source if that is `replaceable`; refuses to touch anything else.
    """
    where = place(path)
    if not exists(where) or (where.is_dir() and not next(iter(where.iterdir()), None)):
        return False
    try:
        node = zarr.open(zarr_store(path), mode="r")
        kept = node.attrs.get(INGESTED) if isinstance(node, zarr.Array) else None
    except Exception as error:  # whatever lies there, it is no zarr array of ours
        raise Refused(
            f"{path}: it exists and is no copy made by tierscale ({one_line(error)}); choose"
            " another place"
        ) from error
    if not isinstance(kept, dict):
        raise Refused(f"{path}: it exists and is no copy made by tierscale; choose another place")
    if kept.get("complete") and kept.get("identity") == source.identity:
        return True
    if kept.get("complete") and not replaceable:
        raise Refused(
            f"{path}: it is a copy of another image, or of this one before it changed; remove it,"
            " or choose another place"
        )
    remove_tree(where)
    return False


def bands(source: Source, rows: int) -> Iterator[tuple[int, np.ndarray]]:
    """(first row, (channels, rows, x)) of exactly `rows` rows, fewer at the bottom, whatever strips
    the source comes in.

    Bands share one buffer: each is valid until the next is asked for.
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
