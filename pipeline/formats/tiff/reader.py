"""TIFF, BigTIFF, OME-TIFF and SVS: pages found by tifffile, pixels read tile by tile, strip by
strip or straight from the file.
"""

from __future__ import annotations

import logging
import math
import os
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tifffile

from tierscale.pipeline.errors import Damaged, Refused, one_line
from tierscale.pipeline.formats import samples as arithmetic
from tierscale.pipeline.formats.fingerprint import file_identity
from tierscale.pipeline.formats.metadata import PhotoMetadata
from tierscale.pipeline.formats.orientation import Turned, turned_bytes
from tierscale.pipeline.formats.source import (
    Pixels,
    Selection,
    Source,
    check_decode,
    decoding,
    ingest_bytes,
)
from tierscale.pipeline.formats.tiff.colour import Meaning, meaning
from tierscale.pipeline.formats.tiff.metadata import significant_bits, tiff_facts
from tierscale.pipeline.formats.tiff.pages import Picked, pick
from tierscale.pipeline.formats.tiff.segments import Segments
from tierscale.pipeline.formats.uncompressed import Finishing, Flat, Step

# tifffile logs what it mends; what it cannot mend we raise.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)

# A tile larger than this is a poor way to reach a window: such images are ingested like strips.
LARGE_TILE = 16 << 20


@dataclass(frozen=True, slots=True)
class Described:
    """What the directory of a TIFF says of the picked image: reader of its stored pixels, what they
    mean, facts, and so on.
    """

    picked: Picked
    pixels: Segments | Flat
    meant: Meaning
    facts: PhotoMetadata
    bits: int | None
    orientation: int
    notes: tuple[str, ...]


def open_tiff(uri: str, selection: Selection, max_bytes: int | None) -> Source:
    """A TIFF of any kind. OME-TIFFs are held to their own pixels: other files that they name are
    not opened.
    """
    with decoding(uri, "the TIFF directory"), tifffile.TiffFile(uri, _multifile=False) as tif:
        told = described(tif, selection, uri)
    pixels, meant, facts, notes = told.pixels, told.meant, told.facts, told.notes
    upright: Pixels = pixels
    if told.orientation > 1:
        facts = replace(facts.turned() if told.orientation >= 5 else facts, geo=None)
        notes += (
            "it was set upright" + (", without its georeferencing" if told.facts.geo else ""),
        )
        upright = Turned(pixels, told.orientation)
    random_access = isinstance(pixels, Flat) or (
        bool(told.picked.page.is_tiled) and pixels.segment_bytes <= LARGE_TILE
    )
    needed = tiff_bytes(pixels, random_access, told.orientation)
    try:
        check_decode(uri, needed, max_bytes)
    except Refused:
        pixels.close()
        raise
    return Source(
        uri=uri,
        shape=upright.shape,
        dtype=upright.dtype,
        colour=meant.colour,
        alpha=meant.alpha,
        bits=told.bits,
        random_access=random_access,
        decode_bytes=needed,
        identify=lambda: file_identity(uri, "TIFF", selection),
        facts=facts,
        notes=notes,
        pixels=upright,
    )


def described(tif: tifffile.TiffFile, selection: Selection, uri: str) -> Described:
    """Read the directory and check it; no pixel is decoded."""
    picked = pick(tif, selection, uri)
    page = picked.page
    check_layout(picked, uri)
    facts, notes = tiff_facts(tif, picked, uri)
    composite = bool(tif.is_imagej and int((tif.imagej_metadata or {}).get("channels", 1)) > 1)
    meant = meaning(page, len(picked.planes) > 1, composite, uri)
    if meant.converted:
        facts = replace(facts, icc=None)
    dtype, note = arithmetic.kept_type(blank(page, meant.steps).dtype, uri)
    stated = significant_bits(tif)
    bits = meant.bits or (
        stated if stated and stated < 8 * dtype.itemsize and dtype.kind == "u" else None
    )
    orientation = page.tags.valueof(274, 1)
    pixels = tiff_pixels(uri, picked, Finishing(meant.steps, dtype), facts.nodata, bool(facts.geo))
    all_notes = (*picked.notes, *meant.notes, *notes, *((note,) if note else ()))
    return Described(
        picked,
        pixels,
        meant,
        facts,
        bits,
        int(orientation) if orientation in range(1, 9) else 1,
        all_notes,
    )


def blank(page: Any, steps: tuple[Step, ...]) -> np.ndarray:
    """One black pixel of the page after its conversions: tells their type and number of
    channels.
    """
    block = np.zeros((1, 1, page.samplesperpixel), page.dtype)
    for step in steps:
        block = step(block)
    return block


def check_layout(picked: Picked, uri: str) -> None:
    """Refuse or call damaged what cannot be read, before any pixel is: sizes, codec, segments
    missing or beyond the end of the file.
    """
    page = picked.page
    if page.dtype is None or 0 in (page.imagelength, page.imagewidth, page.samplesperpixel):
        size = f"{page.imagelength} x {page.imagewidth} x {page.samplesperpixel}"
        raise Damaged(
            f"{uri}: a page of {size} samples of {page.bitspersample} bits cannot be read; the file"
            " is damaged, fetch it again"
        )
    if page.imagedepth > 1 or set(page.axes) - set("YXS"):
        raise Refused(
            f"{uri}: a page with axes {page.axes} is a volume, which is not supported; save its"
            " planes as pages"
        )
    high, wide = (
        (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, page.imagewidth)
    )
    if not high or not wide:
        raise Damaged(
            f"{uri}: its tiles measure {high} x {wide} pixels; the file is damaged, fetch it again"
        )
    if page.compression != 1:
        try:
            tifffile.TIFF.DECOMPRESSORS[page.compression]
        except KeyError as error:
            raise Refused(
                f"{uri}: TIFF compression {one_line(error)} is not supported; convert it to deflate"
            ) from error
    count = (
        -(-page.imagelength // high)
        * -(-page.imagewidth // wide)
        * (page.samplesperpixel if page.planarconfig == 2 else 1)
    )
    length = os.stat(uri).st_size
    for plane, _ in picked.planes:
        if len(plane.dataoffsets) < count or len(plane.databytecounts) < count:
            raise Damaged(
                f"{uri}: {count} tiles or strips are declared but {len(plane.dataoffsets)} are"
                " listed; the file is damaged"
            )
        ends = np.asarray(plane.dataoffsets[:count], np.float64) + np.asarray(
            plane.databytecounts[:count], np.float64
        )
        if ends.max() > length:
            first = int(np.argmax(ends > length))
            raise Damaged(
                f"{uri}: tile or strip {first} ends at byte {ends[first]:.0f} of {length}; the file"
                " is cut short, fetch it again"
            )


def tiff_pixels(
    uri: str, picked: Picked, finish: Finishing, nodata: float | None, sparse: bool
) -> Segments | Flat:
    """The reader for the picked planes. GDAL leaves out tiles without data; in any other file a
    missing tile is damage.
    """
    page = picked.page
    channels = blank(page, finish.steps).shape[2] * len(picked.planes)
    shape = (channels, page.imagelength, page.imagewidth)
    offsets = flat_offsets(picked)
    if offsets is None and any(index for _, index in picked.planes):
        raise Refused(
            f"{uri}: an ImageJ stack in one compressed page is not supported; save it as OME-TIFF"
        )
    handle = os.open(uri, os.O_RDONLY | os.O_CLOEXEC)
    if offsets is not None:
        together = page.samplesperpixel if page.planarconfig == 1 else 1
        stored = np.dtype(page.dtype).newbyteorder(page.parent.byteorder)
        return Flat(uri, handle, offsets, together, stored, finish, shape)
    for (
        plane,
        _,
    ) in (
        picked.planes
    ):  # tifffile reads these when first asked, for which the file must still be open to it
        _ = plane.keyframe.decode, plane.keyframe.jpegheader, plane.jpegtables
    missing = (nodata or 0.0) if sparse and page.is_tiled else None
    return Segments(uri, handle, tuple(plane for plane, _ in picked.planes), finish, shape, missing)


def flat_offsets(picked: Picked) -> tuple[int, ...] | None:
    """Where each plane begins in the file if its rows follow each other as they are, else None."""
    page = picked.page
    plain = (
        page.compression == 1
        and page.predictor == 1
        and not page.is_tiled
        and not page.is_subsampled
        and page.fillorder == 1
    )
    if (
        not plain
        or page.bitspersample not in (8, 16, 32, 64)
        or page.bitspersample != 8 * np.dtype(page.dtype).itemsize
    ):
        return None
    separate = page.samplesperpixel if page.planarconfig == 2 else 1
    size = (
        page.imagelength
        * page.imagewidth
        * page.samplesperpixel
        // separate
        * np.dtype(page.dtype).itemsize
    )
    offsets: list[int] = []
    for plane, index in picked.planes:
        starts, counts = (
            np.asarray(plane.dataoffsets, np.int64),
            np.asarray(plane.databytecounts, np.int64),
        )
        if (
            np.any(starts[:-1] + counts[:-1] != starts[1:])
            or counts.sum() < size * separate
            or not starts[0]
        ):
            return None
        offsets += [
            int(starts[0]) + (index * separate + sample) * size for sample in range(separate)
        ]
    return tuple(offsets)


def tiff_bytes(pixels: Segments | Flat, random_access: bool, orientation: int) -> int:
    """Memory beside the window that reading takes, in bytes: cached and fresh segments, and for
    strips the band on its way.
    """
    if isinstance(pixels, Flat):
        return 0
    page = pixels.planes[0].keyframe
    image = math.prod(pixels.shape) * np.dtype(page.dtype).itemsize
    largest = max(max(plane.databytecounts) for plane in pixels.planes)
    # Fresh data lie there compressed, decompressed and with their predictor undone.
    held = min(image, pixels.kept_bytes) + 2 * pixels.segment_bytes + largest
    band = (
        2
        * pixels.shape[0]
        * min(pixels.strip_rows, pixels.shape[1])
        * pixels.shape[2]
        * pixels.dtype.itemsize
    )
    return (
        held
        if random_access
        else held
        + band
        + ingest_bytes(pixels.shape, pixels.dtype)
        + turned_bytes(pixels, orientation)
    )
