"""TIFF, BigTIFF, OME-TIFF and SVS as sources.

tifffile finds the pages; pixels are read tile by tile, strip by strip or straight from the file.
"""

from __future__ import annotations

import logging
import math
import os
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import tifffile

from tierscale.pipeline.errors import Refused
from tierscale.pipeline.formats import samples as arithmetic
from tierscale.pipeline.formats.decoding import check_decode, decoding
from tierscale.pipeline.formats.fingerprint import file_identity
from tierscale.pipeline.formats.metadata import PhotoMetadata
from tierscale.pipeline.formats.orientation import UprightPixels, upright_bytes
from tierscale.pipeline.formats.source import Pixels, Samples, Source, ingest_bytes
from tierscale.pipeline.formats.tiff.colour import RGB, Interpretation, interpret
from tierscale.pipeline.formats.tiff.layout import check_layout, uncompressed_layout
from tierscale.pipeline.formats.tiff.mask import MaskedPixels, MaskUse, mask_of, mask_use
from tierscale.pipeline.formats.tiff.metadata import tiff_metadata
from tierscale.pipeline.formats.tiff.ome import significant_bits
from tierscale.pipeline.formats.tiff.pages import SelectedPages, select_pages
from tierscale.pipeline.formats.tiff.segments import Segments
from tierscale.pipeline.formats.tiff.unwritten import Fill, fill_of, unwritten_notes
from tierscale.pipeline.formats.uncompressed import Conversion, Step, UncompressedPixels
from tierscale.pipeline.plan.options import Selection

# tifffile logs what it mends; what it cannot mend is raised here.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)

# A tile larger than this is a poor way to reach a window: such images are ingested like strips.
LARGE_TILE = 16 << 20


@dataclass(frozen=True, slots=True)
class TiffImage:
    """What the directory of a TIFF says of the selected image.

    pixels: reader of the stored pixels, not yet upright. mask: reader of its mask page and
    what becomes of it, if it has one. tiled: whether pixels lie in tiles.
    """

    pixels: Segments | UncompressedPixels
    mask: tuple[Segments | UncompressedPixels, MaskUse] | None
    tiled: bool
    samples: Samples
    metadata: PhotoMetadata
    orientation: int
    notes: tuple[str, ...]


def open_tiff(uri: str, selection: Selection, max_bytes: int | None) -> Source:
    """A TIFF of any kind. Raises what open_image does.

    OME-TIFFs are held to their own pixels: other files that they name are not opened.
    """
    with decoding(uri, "the TIFF directory"), tifffile.TiffFile(uri, _multifile=False) as tif:
        image = describe(tif, selection, uri)
    pixels, metadata, notes = image.pixels, image.metadata, image.notes
    mask = image.mask
    upright: Pixels = pixels if mask is None else MaskedPixels(pixels, *mask)
    if image.orientation > 1:
        metadata = metadata.transposed() if image.orientation >= 5 else metadata
        notes += ("it was set upright" + (", without its georeferencing" if metadata.geo else ""),)
        metadata = replace(metadata, geo=None)
        upright = UprightPixels(upright, image.orientation)
    random_access = isinstance(pixels, UncompressedPixels) or (
        image.tiled and pixels.segment_bytes <= LARGE_TILE
    )
    needed = decode_bytes(pixels, random_access, image.orientation)
    if mask is not None:
        # Its segments hold many rows in few bytes: they are decoded as often as those of pixels.
        random_access &= getattr(mask[0], "segment_bytes", 0) <= LARGE_TILE
        needed += decode_bytes(mask[0], random_access, image.orientation)
    try:
        check_decode(uri, needed, max_bytes)
    except Refused:
        upright.close()
        raise
    return Source(
        uri=uri,
        pixels=upright,
        samples=image.samples,
        metadata=metadata,
        random_access=random_access,
        decode_bytes=needed,
        notes=notes,
        identify=partial(file_identity, uri, "TIFF", selection),
    )


def describe(tif: tifffile.TiffFile, selection: Selection, uri: str) -> TiffImage:
    """Read the directory and check it; no pixel is decoded."""
    selected = select_pages(tif, selection, uri)
    page = selected.page
    check_layout(selected, uri)
    stacked = len(selected.planes) > 1
    composite = bool(tif.is_imagej and int((tif.imagej_metadata or {}).get("channels", 1)) > 1)
    metadata, notes = tiff_metadata(tif, selected)
    meaning = interpret(page, stacked, composite, uri)
    if meaning.converted:
        metadata = replace(metadata, icc=None)
    if meaning.colour == "channels" and not (stacked or composite):
        metadata = with_colours(metadata, page)
    dtype, note = arithmetic.pixel_type(black_pixel(page, meaning.steps).dtype, uri)
    orientation = selected.full.tags.valueof(274, 1)
    fill = fill_of(tif, page, metadata.nodata)
    samples = Samples(meaning.colour, meaning.alpha, bits_of(meaning, significant_bits(tif), dtype))
    masking = mask_of(tif, selected)
    use = None if masking is None else mask_use(samples, dtype, metadata, uri)
    if use is not None:
        samples, metadata, notes = use.samples, use.metadata, (*notes, use.note)
    pixels = open_pixels(uri, selected, Conversion(meaning.steps, dtype), fill)
    return TiffImage(
        pixels=pixels,
        mask=None if masking is None or use is None else (open_mask(uri, masking), use),
        tiled=bool(page.is_tiled),
        samples=samples,
        metadata=metadata,
        orientation=int(orientation) if orientation in range(1, 9) else 1,
        notes=(
            *(*selected.notes, *meaning.notes, *notes, *((note,) if note else ())),
            *unwritten_notes(selected, fill),
        ),
    )


def with_colours(metadata: PhotoMetadata, page: Any) -> PhotoMetadata:
    """Metadata that call the first three of an RGB page's further samples by their colours."""
    if int(page.photometric) != RGB or metadata.channel_colours:
        return metadata
    return replace(
        metadata,
        channel_colours=("FF0000", "00FF00", "0000FF", *["FFFFFF"] * (page.samplesperpixel - 3)),
    )


def bits_of(meaning: Interpretation, stated: int | None, dtype: np.dtype) -> int | None:
    """Significant bits where fewer than the type has: as stored, else as OME-XML states."""
    fewer = stated and stated < 8 * dtype.itemsize and dtype.kind == "u"
    return meaning.bits or (stated if fewer else None)


def black_pixel(page: Any, steps: tuple[Step, ...]) -> np.ndarray:
    """One pixel of zeros after its conversions: tells their type and number of channels."""
    block = np.zeros((1, 1, page.samplesperpixel), page.dtype)
    for step in steps:
        block = step(block)
    return block


def open_pixels(
    uri: str, selected: SelectedPages, convert: Conversion, fill: Fill
) -> Segments | UncompressedPixels:
    """The reader of the selected planes. Refused: their layout is not supported."""
    page = selected.page
    channels = black_pixel(page, convert.steps).shape[2] * len(selected.planes)
    shape = (channels, page.imagelength, page.imagewidth)
    layout = uncompressed_layout(selected)
    if layout is None and any(index for _, index in selected.planes):
        raise Refused(
            f"{uri}: an ImageJ stack in one compressed page is not supported; save it as OME-TIFF"
        )
    handle = os.open(uri, os.O_RDONLY | os.O_CLOEXEC)
    if layout is not None:
        return UncompressedPixels(
            uri=uri, handle=handle, layout=layout, convert=convert, shape=shape
        )
    planes = tuple(plane for plane, _ in selected.planes)
    for plane in planes:
        # tifffile reads these on first access, for which the file must still be open to it.
        _ = plane.keyframe.decode, plane.keyframe.jpegheader, plane.jpegtables
    return Segments(
        uri=uri, handle=handle, planes=planes, convert=convert, shape=shape, fill=fill.values
    )


def open_mask(uri: str, mask: SelectedPages) -> Segments | UncompressedPixels:
    """The reader of a mask; where tiles are left out, nothing is valid."""
    check_layout(mask, uri)
    meaning = interpret(mask.page, False, False, uri)
    dtype, _ = arithmetic.pixel_type(black_pixel(mask.page, meaning.steps).dtype, uri)
    left_out = Fill((0,) * mask.page.samplesperpixel, "not valid")
    return open_pixels(uri, mask, Conversion(meaning.steps, dtype), left_out)


def decode_bytes(
    pixels: Segments | UncompressedPixels, random_access: bool, orientation: int
) -> int:
    """Memory beside the window that reading or ingesting takes, in bytes.

    It holds cached and fresh segments, and for strips the band on its way.
    """
    if isinstance(pixels, UncompressedPixels):
        return 0
    channels, height, width = pixels.shape
    image = math.prod(pixels.shape) * np.dtype(pixels.planes[0].keyframe.dtype).itemsize
    largest = max(max(plane.databytecounts) for plane in pixels.planes)
    # Fresh data lie there compressed, decompressed and with their predictor undone.
    held = min(image, pixels.kept_bytes) + 2 * pixels.segment_bytes + largest
    if random_access:
        return held
    rows = min(pixels.strip_rows, height)
    band = 2 * channels * rows * width * pixels.dtype.itemsize
    ingesting = ingest_bytes(pixels.shape, pixels.dtype)
    return held + band + ingesting + upright_bytes(pixels, orientation)
