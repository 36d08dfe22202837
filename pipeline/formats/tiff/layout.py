"""Where the samples of TIFF pages lie in the file, checked before any pixel is read."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import tifffile

from tierscale.pipeline.errors import Damaged, Refused, one_line
from tierscale.pipeline.formats.tiff.pages import SelectedPages
from tierscale.pipeline.formats.uncompressed import Layout

# Compressions of which the decoder spreads subsampled colours itself: all that are JPEG.
JPEGS = (6, 7, 33007, 34892)


def check_layout(selected: SelectedPages, uri: str) -> None:
    """Check sizes, codec and segments of the selected pages; no pixel is read.

    Refused: they are not supported. Damaged: sizes are impossible, or segments are missing or end
    beyond the file.
    """
    page = selected.page
    if 0 in (page.imagelength, page.imagewidth, page.samplesperpixel):
        size = f"{page.imagelength} x {page.imagewidth} x {page.samplesperpixel}"
        raise Damaged(
            f"{uri}: a page of {size} samples of {page.bitspersample} bits cannot be read; the file"
            " is damaged, fetch it again"
        )
    if page.dtype is None:
        raise Refused(
            f"{uri}: samples of {page.bitspersample} bits of the format {page.sampleformat} are not"
            " supported; convert the file to 8 or 16 bits"
        )
    if page.imagedepth > 1 or set(page.axes) - set("YXS"):
        raise Refused(
            f"{uri}: a page with axes {page.axes} is a volume, which is not supported; save its"
            " planes as pages"
        )
    if page.compression != 1:
        try:
            tifffile.TIFF.DECOMPRESSORS[page.compression]
        except KeyError as error:
            raise Refused(
                f"{uri}: TIFF compression {one_line(error)} is not supported; convert it to deflate"
            ) from error
    count = segment_count(page, uri)
    check_decoder(page, uri)
    for plane, _ in selected.planes:
        state_lengths(plane)
    check_segments(selected, count, uri)


def check_decoder(page: Any, uri: str) -> None:
    """Refused: no decoder of this kind of samples is known; nothing is decoded."""
    if page.is_subsampled and (page.compression not in JPEGS or page.planarconfig != 1):
        across, down = page.subsampling or (2, 2)
        raise Refused(
            f"{uri}: YCbCr with chroma subsampling of {across} x {down} outside JPEG is not"
            " supported; convert the file to RGB"
        )
    try:
        page.decode(None, 0)
    except (ValueError, NotImplementedError) as error:
        raise Refused(
            f"{uri}: this kind of TIFF is not supported ({one_line(error)}); convert the file to"
            " RGB, compressed by deflate"
        ) from error


def state_lengths(page: Any) -> None:
    """Let uncompressed segments whose lengths are stated as 0 be as long as their size says.

    So does libtiff. A segment whose offset is 0 too was never written.
    """
    offsets, counts = np.asarray(page.dataoffsets), np.asarray(page.databytecounts)
    key = page.keyframe
    if key.compression != 1 or counts.any() or not offsets.all() or not len(offsets):
        return
    high, wide = (
        (key.tilelength, key.tilewidth) if key.is_tiled else (key.rowsperstrip, key.imagewidth)
    )
    together = key.samplesperpixel if key.planarconfig == 1 else 1
    row = -(-wide * together * key.bitspersample // 8)
    down = -(-key.imagelength // high)
    across = 1 if not key.is_tiled else -(-key.imagewidth // wide)
    rows = [
        high if key.is_tiled else min(high, key.imagelength - number // across % down * high)
        for number in range(len(offsets))
    ]
    page.databytecounts = tuple(row * count for count in rows)


def segment_count(page: Any, uri: str) -> int:
    """Tiles or strips that a page must have. Damaged: they measure nothing."""
    if page.is_tiled:
        high, wide = page.tilelength, page.tilewidth
    else:
        high, wide = page.rowsperstrip, page.imagewidth
    if not high or not wide:
        raise Damaged(
            f"{uri}: its tiles measure {high} x {wide} pixels; the file is damaged, fetch it again"
        )
    separate = page.samplesperpixel if page.planarconfig == 2 else 1
    return -(-page.imagelength // high) * -(-page.imagewidth // wide) * separate


def check_segments(selected: SelectedPages, count: int, uri: str) -> None:
    """Damaged: a page lists fewer than `count` segments, or one that ends beyond the file."""
    length = os.stat(uri).st_size
    for page, _ in selected.planes:
        if len(page.dataoffsets) < count or len(page.databytecounts) < count:
            raise Damaged(
                f"{uri}: {count} tiles or strips are declared but {len(page.dataoffsets)} are"
                " listed; the file is damaged, fetch it again"
            )
        offsets = np.asarray(page.dataoffsets[:count], np.float64)
        ends = offsets + np.asarray(page.databytecounts[:count], np.float64)
        if ends.max() > length:
            first = int(np.argmax(ends > length))
            raise Damaged(
                f"{uri}: tile or strip {first} ends at byte {ends[first]:.0f} of {length}; the file"
                " is cut short, fetch it again"
            )


def uncompressed_layout(selected: SelectedPages) -> Layout | None:
    """Where each plane lies in the file if its rows follow each other as they are, else None."""
    page = selected.page
    if not rows_are_plain(page):
        return None
    separate = page.samplesperpixel if page.planarconfig == 2 else 1
    together = page.samplesperpixel // separate
    stored = np.dtype(page.dtype).newbyteorder(page.parent.byteorder)
    plane_bytes = page.imagelength * page.imagewidth * together * stored.itemsize
    offsets: list[int] = []
    for plane, index in selected.planes:
        starts = np.asarray(plane.dataoffsets, np.int64)
        counts = np.asarray(plane.databytecounts, np.int64)
        whole = counts.sum() >= plane_bytes * separate and bool(starts[0])
        if not whole or np.any(starts[:-1] + counts[:-1] != starts[1:]):
            return None
        first = int(starts[0]) + index * separate * plane_bytes
        offsets += [first + sample * plane_bytes for sample in range(separate)]
    return Layout(tuple(offsets), together, stored)


def rows_are_plain(page: Any) -> bool:
    """Whether samples lie uncompressed, as numbers of whole bytes, in strips."""
    unpacked = page.bitspersample in (8, 16, 32, 64) and (
        page.bitspersample == 8 * np.dtype(page.dtype).itemsize
    )
    changed = page.compression != 1 or page.predictor != 1 or page.fillorder != 1
    return unpacked and not (changed or page.is_tiled or page.is_subsampled)
