"""An output OME-Zarr as a tiled, pyramidal TIFF, streamed in bounded memory."""

from __future__ import annotations

import itertools
import math
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tifffile
import zarr

from tierscale.pipeline.errors import Refused
from tierscale.pipeline.output.export.cog import lay_out
from tierscale.pipeline.output.export.common import Exported, Progress, whole_file, with_progress
from tierscale.pipeline.output.export.tiff_exif import write_directories
from tierscale.pipeline.output.export.tiff_tags import first_options, level_options
from tierscale.pipeline.output.ome import RGB_COLOURS

TILE = 512
# Flag of a page that is the mask of another.
MASK = 4
# Pixels read from the zarr at a time.
BLOCK_BYTES = 32 << 20
# Classic TIFF counts bytes in 32 bits; the margin is for directories and for data that compression
# makes longer.
CLASSIC_BYTES = (1 << 32) - (1 << 26)
COMPRESSIONS = ("deflate", "zstd", "lzw", "jpeg", "none")


def export_cog(
    image: Exported, out: str, *, compression: str = "deflate", progress: Progress | None = None
) -> None:
    """Write all pyramid levels as a Cloud Optimized GeoTIFF, with its bands in one page.

    While it is written it takes twice its place on the disk. compression, progress: as of
    `export_tiff`.
    """
    image = replace(image, flat=True)
    with whole_file(out) as temporary:
        pages = f"{temporary}.pages"
        try:
            write_pages(image, pages, compression, progress)
            lay_out(pages, temporary)
        finally:
            with suppress(FileNotFoundError):
                os.remove(pages)
        write_directories(temporary, image.metadata.exif)


def export_tiff(
    image: Exported, out: str, *, compression: str = "deflate", progress: Progress | None = None
) -> None:
    """Write all pyramid levels as a TIFF, in the form in which most programs see them.

    A raster with a place on the ground is one page of all bands, followed by pages of its smaller
    levels, and each by its mask where there is one, as GDAL writes them. An image of colour
    "channels" becomes an OME-TIFF with a page for each channel. In all others the pages of smaller
    levels are found both as SubIFDs of the first page and behind it: some readers look only here,
    some only there. It is a BigTIFF where it may pass 4 GiB. compression: deflate, zstd or lzw
    (lossless, with a predictor), jpeg (8-bit grey or RGB) or none. progress: (tiles written, all).
    """
    with whole_file(out) as temporary:
        write_pages(image, temporary, compression, progress)
        if not image.is_raster and not image.has_planes and len(image.levels()) > 1:
            chain_levels(temporary)
        write_directories(temporary, image.metadata.exif)


def write_pages(image: Exported, path: str, compression: str, progress: Progress | None) -> None:
    """Write the pages of all levels to a new file. Refused: a compression cannot hold them."""
    levels = image.levels()
    dtype = levels[0].dtype
    check_compression(compression, "rgb" if image.has_mask else image.colour, dtype)
    parts = parts_of(image, levels)
    big = sum(math.prod(padded(level.shape)) for level in levels) * dtype.itemsize > CLASSIC_BYTES
    stream = with_progress(
        (tile for part in parts for tile in tiles(image, part)),
        sum(part.tiles for part in parts),
        progress,
    )
    with tifffile.TiffWriter(path, bigtiff=big, ome=image.has_planes, byteorder="<") as writer:
        for part in parts:
            writer.write(
                itertools.islice(stream, part.tiles),
                shape=part.stored_shape,
                dtype=bool if part.mask else dtype,
                tile=(TILE, TILE),
                subfiletype=min(part.number, 1) + MASK * part.mask,
                maxworkers=2,
                buffersize=BLOCK_BYTES,
                **sample_options(image, part, compression),
                **page_options(image, levels, part, big),
            )


@dataclass(frozen=True, slots=True)
class Part:
    """What becomes a page of the TIFF, or the pages of all planes.

    level: its array. number: of the level. channels: those that are in it. planes: whether each of
    them is a plane of its own. mask: whether it is the mask of the page before.
    """

    level: zarr.Array
    number: int
    channels: slice
    planes: bool
    mask: bool = False

    @property
    def samples(self) -> int:
        """Number of channels."""
        return len(range(*self.channels.indices(self.level.shape[0])))

    @property
    def tiles(self) -> int:
        """Number of tiles; planes have tiles of their own."""
        _, height, width = self.level.shape
        return -(-height // TILE) * -(-width // TILE) * (self.samples if self.planes else 1)

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """The shape in the TIFF: planes follow each other, colours are interleaved."""
        size = self.level.shape[1:]
        if self.planes:
            return (self.samples, *size)
        return size if self.samples == 1 else (*size, self.samples)


def parts_of(image: Exported, levels: Sequence[zarr.Array]) -> list[Part]:
    """What is written, in order: each level, with its mask behind it where there is one."""
    planes = image.colour == "channels"
    if not image.has_mask:
        return [Part(level, number, slice(None), planes) for number, level in enumerate(levels)]
    return [
        part
        for number, level in enumerate(levels)
        for part in (
            Part(level, number, slice(0, -1), False),
            Part(level, number, slice(-1, None), False, True),
        )
    ]


def page_options(
    image: Exported, levels: Sequence[zarr.Array], part: Part, big: bool
) -> dict[str, Any]:
    """The metadata of a page as options of tifffile. big: in a BigTIFF."""
    if part.mask:
        return {"software": "tierscale", "metadata": None}
    if part.number:
        return level_options(image, part.level.shape[2] / levels[0].shape[2])
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


def tiles(image: Exported, part: Part) -> Iterator[np.ndarray]:
    """All tiles of a part, row by row: (TILE, TILE) or (TILE, TILE, samples).

    Beyond the image, its edge is repeated. A mask is valid from half of opacity on.
    """
    level = part.level
    channels, height, width = level.shape
    planes = [slice(c, c + 1) for c in range(channels)] if part.planes else [part.channels]
    samples = 1 if part.planes else part.samples
    span = max(1, BLOCK_BYTES // (TILE * TILE * samples * level.dtype.itemsize)) * TILE
    for group, y, x in itertools.product(planes, range(0, height, TILE), range(0, width, span)):
        block = image.read(level, (group, slice(y, y + TILE), slice(x, x + span)))
        if part.mask:
            block = block > np.iinfo(block.dtype).max // 2
        missing = (TILE - block.shape[1], -block.shape[2] % TILE)
        block = np.pad(block, ((0, 0), (0, missing[0]), (0, missing[1])), mode="edge")
        for left in range(0, block.shape[2], TILE):
            tile = block[:, :, left : left + TILE]
            yield np.ascontiguousarray(tile[0] if samples == 1 else tile.transpose(1, 2, 0))


def sample_options(image: Exported, part: Part, compression: str) -> dict[str, Any]:
    """How tifffile is to store the samples of a part."""
    if part.mask:
        return {"photometric": "mask", "compression": "zlib"}
    colour, channels, dtype = image.colour, part.samples, part.level.dtype
    if image.has_mask:
        colour = "rgb" if channels == 3 else "grey"
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
    predictor = 2 if dtype.kind != "f" else 3 if image.is_raster else 1
    return options | {
        "compression": {"deflate": "zlib"}.get(compression, compression),
        "predictor": predictor,
    }
