"""An output OME-Zarr as a tiled, pyramidal TIFF, streamed in bounded memory."""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tifffile
import zarr

from tierscale.pipeline.errors import Refused
from tierscale.pipeline.output.export.common import Exported, Progress, whole_file, with_progress
from tierscale.pipeline.output.export.tiff_exif import write_directories
from tierscale.pipeline.output.export.tiff_tags import first_options, level_options
from tierscale.pipeline.output.ome import RGB_COLOURS

TILE = 512
# Pixels read from the zarr at a time.
BLOCK_BYTES = 32 << 20
# Classic TIFF counts bytes in 32 bits; the margin is for directories and for data that compression
# makes longer.
CLASSIC_BYTES = (1 << 32) - (1 << 26)
COMPRESSIONS = ("deflate", "zstd", "lzw", "jpeg", "none")


def export_tiff(
    image: Exported, out: str, *, compression: str = "deflate", progress: Progress | None = None
) -> None:
    """Write all pyramid levels as a TIFF, in the form in which most programs see them.

    A raster with a place on the ground is one page of all bands, followed by pages of its smaller
    levels, as GDAL writes them. An image of colour "channels" becomes an OME-TIFF with a page for
    each channel. In all others the pages of smaller levels are found both as SubIFDs of the first
    page and behind it: some readers look only here, some only there. It is a BigTIFF where it may
    pass 4 GiB. compression: deflate, zstd or lzw (lossless, with a predictor), jpeg (8-bit grey or
    RGB) or none. progress: (tiles written, all).
    """
    levels = image.levels()
    dtype = levels[0].dtype
    check_compression(compression, image.colour, dtype)
    total = sum(tiles_of(level.shape, image.colour) for level in levels)
    big = sum(math.prod(padded(level.shape)) for level in levels) * dtype.itemsize > CLASSIC_BYTES
    pages = with_progress(
        (tile for level in levels for tile in tiles(image, level)), total, progress
    )
    with whole_file(out) as temporary:
        with tifffile.TiffWriter(
            temporary, bigtiff=big, ome=image.has_planes, byteorder="<"
        ) as writer:
            for number, level in enumerate(levels):
                writer.write(
                    itertools.islice(pages, tiles_of(level.shape, image.colour)),
                    shape=stored_shape(level.shape, image.colour),
                    dtype=dtype,
                    tile=(TILE, TILE),
                    subfiletype=min(number, 1),
                    maxworkers=2,
                    buffersize=BLOCK_BYTES,
                    **sample_options(image, level, compression),
                    **page_options(image, levels, number, big),
                )
        if len(levels) > 1 and not image.is_raster and not image.has_planes:
            chain_levels(temporary)
        write_directories(temporary, image.metadata.exif)


def page_options(
    image: Exported, levels: Sequence[zarr.Array], number: int, big: bool
) -> dict[str, Any]:
    """The metadata of a level as options of tifffile. big: in a BigTIFF."""
    if number:
        return level_options(image, levels[number].shape[2] / levels[0].shape[2])
    subifds = None if image.is_raster else len(levels) - 1 or None
    return first_options(image, levels[0], big) | {"subifds": subifds}


def chain_levels(path: str) -> None:
    """Let each page of a little-endian TIFF name the next smaller level as the page behind it.

    The file has one page, whose SubIFDs are the levels.
    """
    with tifffile.TiffFile(path) as tif:
        first = tif.pages.first
        offsets = [first.offset, *(first.subifds or ())]
        count, entry, pointer = ("<Q", 20, "<Q") if tif.is_bigtiff else ("<H", 12, "<I")
    with open(path, "r+b") as file:
        for offset, following in itertools.pairwise(offsets):
            file.seek(offset)
            (tags,) = struct.unpack(count, file.read(struct.calcsize(count)))
            file.seek(tags * entry, 1)
            file.write(struct.pack(pointer, following))


def check_compression(compression: str, colour: str, dtype: np.dtype) -> None:
    """Refuse a compression that is unknown or cannot hold the pixels."""
    if compression not in COMPRESSIONS:
        raise Refused(
            f"compression {compression} is unknown; choose one of {', '.join(COMPRESSIONS)}"
        )
    if compression == "jpeg" and (dtype != np.uint8 or colour not in ("grey", "rgb")):
        raise Refused(
            f"JPEG holds 8-bit grey or RGB, not {dtype} {colour}; choose --compression deflate or"
            " zstd"
        )


def padded(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape (c, y, x) with y and x rounded up to whole tiles."""
    return shape[0], -(-shape[1] // TILE) * TILE, -(-shape[2] // TILE) * TILE


def tiles_of(shape: tuple[int, ...], colour: str) -> int:
    """Number of tiles in a level (c, y, x); scientific channels have tiles of their own."""
    return -(-shape[1] // TILE) * -(-shape[2] // TILE) * (shape[0] if colour == "channels" else 1)


def stored_shape(shape: tuple[int, ...], colour: str) -> tuple[int, ...]:
    """The shape in the TIFF of a level (c, y, x): channels are planes, colours are interleaved."""
    if colour == "channels":
        return shape
    return shape[1:] if shape[0] == 1 else (*shape[1:], shape[0])


def tiles(image: Exported, level: zarr.Array) -> Iterator[np.ndarray]:
    """All tiles of a level, row by row: (TILE, TILE) or (TILE, TILE, samples).

    Beyond the image, its edge is repeated.
    """
    channels, height, width = level.shape
    planes = image.colour == "channels"
    groups = [slice(c, c + 1) for c in range(channels)] if planes else [slice(None)]
    samples = 1 if planes else channels
    span = max(1, BLOCK_BYTES // (TILE * TILE * samples * level.dtype.itemsize)) * TILE
    parts = itertools.product(groups, range(0, height, TILE), range(0, width, span))
    for group, y, x in parts:
        block = image.read(level, (group, slice(y, y + TILE), slice(x, x + span)))
        missing = (TILE - block.shape[1], -block.shape[2] % TILE)
        block = np.pad(block, ((0, 0), (0, missing[0]), (0, missing[1])), mode="edge")
        for left in range(0, block.shape[2], TILE):
            tile = block[:, :, left : left + TILE]
            yield np.ascontiguousarray(tile[0] if samples == 1 else tile.transpose(1, 2, 0))


def sample_options(image: Exported, level: zarr.Array, compression: str) -> dict[str, Any]:
    """How tifffile is to store the samples of a level."""
    colour, channels = image.colour, level.shape[0]
    rgb = image.is_raster and channels > 3 and image.metadata.channel_colours[:3] == RGB_COLOURS
    options: dict[str, Any] = {
        "photometric": "rgb" if rgb or colour in ("rgb", "rgba") else "minisblack"
    }
    if channels > 1 and colour != "channels":
        kind = "assocalpha" if image.alpha == "premultiplied" else "unassalpha"
        extra = [kind] if colour in ("rgba", "greya") else None
        options |= {"planarconfig": "contig", "extrasamples": extra}
    elif channels > 1 and image.is_raster:
        # Said for all, or the fourth of an RGB page would be taken for alpha.
        further = ["unspecified"] * (channels - (3 if rgb else 1))
        options |= {"planarconfig": "separate", "extrasamples": further}
    if compression == "jpeg":
        return options | {"compression": "jpeg", "compressionargs": {"level": 90}}
    if compression == "none":
        return options
    # Bio-Formats cannot undo the predictor of floats; GIS programs can.
    predictor = 2 if level.dtype.kind != "f" else 3 if image.is_raster else 1
    return options | {
        "compression": {"deflate": "zlib"}.get(compression, compression),
        "predictor": predictor,
    }
