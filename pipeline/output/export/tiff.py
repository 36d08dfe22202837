"""An output OME-Zarr as a tiled, pyramidal TIFF, streamed in bounded memory and never half-written
under its final name.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import tifffile

from tierscale.pipeline.errors import Refused
from tierscale.pipeline.formats.metadata import PhotoMetadata
from tierscale.pipeline.formats.tiff.metadata import GEO_TAGS
from tierscale.pipeline.output.export.common import (
    Counter,
    Progress,
    finished,
    open_levels,
    per_metre,
    read_part,
)
from tierscale.pipeline.output.export.png import export_png
from tierscale.pipeline.output.export.tiff_exif import directory_tags, write_directories

__all__ = ["export_png", "export_tiff"]

TILE = 512
# Pixels read from the zarr at a time.
BLOCK_BYTES = 32 << 20
# Classic TIFF counts bytes in 32 bits; the margin is for directories and for data that compression
# makes longer.
CLASSIC_BYTES = (1 << 32) - (1 << 26)
COMPRESSIONS = ("deflate", "zstd", "lzw", "jpeg", "none")
SHORT_UNITS = {
    "micrometer": "µm",
    "nanometer": "nm",
    "millimeter": "mm",
    "centimeter": "cm",
    "meter": "m",
    "angstrom": "Å",
    "picometer": "pm",
}


def export_tiff(
    zarr_path: str,
    out: str,
    facts: PhotoMetadata,
    *,
    colour: str,
    alpha: str | None,
    compression: str = "deflate",
    progress: Progress | None = None,
) -> None:
    """Write all pyramid levels of `zarr_path` as a TIFF whose smaller levels are SubIFDs, BigTIFF
    when it may pass 4 GiB.

    colour, alpha: as of a Source. "channels" become an OME-TIFF with a page for each channel.
    compression: deflate, zstd or lzw (lossless, with a predictor), jpeg (8-bit grey or RGB) or
    none. progress: called with (tiles written, all).
    """
    levels = open_levels(zarr_path)
    shape, dtype = levels[0].shape, levels[0].dtype
    check_compression(compression, colour, dtype)
    total = sum(tiles_of(level.shape, colour) for level in levels)
    big = sum(math.prod(padded(level.shape)) for level in levels) * dtype.itemsize > CLASSIC_BYTES
    counted = Counter(total, progress)
    with finished(out) as temporary:
        with tifffile.TiffWriter(
            temporary, bigtiff=big, ome=colour == "channels", byteorder="<"
        ) as writer:
            for number, level in enumerate(levels):
                first = number == 0
                writer.write(
                    counted.through(tiles(zarr_path, level, colour)),
                    shape=stored_shape(level.shape, colour),
                    dtype=dtype,
                    tile=(TILE, TILE),
                    subfiletype=0 if first else 1,
                    subifds=len(levels) - 1 if first and len(levels) > 1 else None,
                    maxworkers=2,
                    buffersize=BLOCK_BYTES,
                    **layout(shape[0], colour, alpha, compression, dtype),
                    **(fact_options(facts, colour, big) if first else {"metadata": None}),
                )
        write_directories(temporary, facts.exif)


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
    """Tiles in a level; channels have their own."""
    return -(-shape[1] // TILE) * -(-shape[2] // TILE) * (shape[0] if colour == "channels" else 1)


def stored_shape(shape: tuple[int, ...], colour: str) -> tuple[int, ...]:
    """A level's (c, y, x) in the order of the TIFF: channels one after the other, colours beside
    each other.
    """
    if colour == "channels":
        return shape
    return shape[1:] if shape[0] == 1 else (*shape[1:], shape[0])


def tiles(zarr_path: str, level: Any, colour: str) -> Iterator[np.ndarray]:
    """All tiles of a level, row by row: (TILE, TILE) or (TILE, TILE, samples). What lies beyond the
    image repeats its edge.
    """
    channels, height, width = level.shape
    groups = range(channels) if colour == "channels" else (slice(None),)
    samples = 1 if colour == "channels" else channels
    span = max(1, BLOCK_BYTES // (TILE * TILE * samples * level.dtype.itemsize)) * TILE
    for group in groups:
        for y in range(0, height, TILE):
            for x in range(0, width, span):
                block = read_part(zarr_path, level, (group, slice(y, y + TILE), slice(x, x + span)))
                block = block[None] if block.ndim == 2 else block
                missing = (TILE - block.shape[1], -block.shape[2] % TILE)
                block = np.pad(block, ((0, 0), (0, missing[0]), (0, missing[1])), mode="edge")
                for left in range(0, block.shape[2], TILE):
                    tile = block[:, :, left : left + TILE]
                    yield np.ascontiguousarray(tile[0] if samples == 1 else tile.transpose(1, 2, 0))


def layout(
    channels: int, colour: str, alpha: str | None, compression: str, dtype: np.dtype
) -> dict[str, Any]:
    """How tifffile is to store the samples."""
    kinds = (
        ["assocalpha" if alpha == "premultiplied" else "unassalpha"]
        if colour in ("rgba", "greya")
        else None
    )
    options: dict[str, Any] = {"photometric": "rgb" if colour in ("rgb", "rgba") else "minisblack"}
    if colour != "channels" and channels > 1:
        options |= {"planarconfig": "contig", "extrasamples": kinds}
    if compression == "jpeg":
        return options | {"compression": "jpeg", "compressionargs": {"level": 90}}
    if compression == "none":
        return options
    return options | {
        "compression": {"deflate": "zlib"}.get(compression, compression),
        "predictor": 3 if dtype.kind == "f" else 2,
    }


def fact_options(facts: PhotoMetadata, colour: str, big: bool) -> dict[str, Any]:
    """The photo facts as options of the first page."""
    tags: list[tuple[Any, ...]] = []
    geo = dict(facts.geo or {})
    if facts.nodata is not None and "GDAL_NODATA" not in geo:
        geo["GDAL_NODATA"] = f"{facts.nodata:.17g}"
    for name, value in geo.items():
        kind = "s" if isinstance(value, str) else "H" if name == "GeoKeyDirectory" else "d"
        tags.append(
            (
                GEO_TAGS[name],
                kind,
                0 if kind == "s" else len(value),
                value if kind == "s" else tuple(value),
                True,
            )
        )
    if facts.xmp:
        tags.append((700, "B", len(facts.xmp), facts.xmp, True))
    description, exif_tags = directory_tags(facts.exif, big)
    options: dict[str, Any] = {
        "software": "tierscale",
        "extratags": tags + exif_tags,
        "iccprofile": facts.icc,
        "metadata": None,
    }
    density = per_metre(facts)
    if facts.resolution and facts.resolution_unit:
        options |= {
            "resolution": facts.resolution,
            "resolutionunit": "INCH" if facts.resolution_unit == "inch" else "CENTIMETER",
        }
    elif density:
        options |= {
            "resolution": (density[0] / 100, density[1] / 100),
            "resolutionunit": "CENTIMETER",
        }
    if colour == "channels":
        options["metadata"] = ome_metadata(facts)
    elif description:
        options["description"] = description
    return options


def ome_metadata(facts: PhotoMetadata) -> dict[str, Any]:
    """Axes, channel names and colours, and pixel size for the OME-XML of a scientific image."""
    metadata: dict[str, Any] = {"axes": "CYX"}
    channel: dict[str, Any] = {}
    if facts.channel_names:
        channel["Name"] = list(facts.channel_names)
    if facts.channel_colours:
        signed = [int(colour, 16) << 8 | 0xFF for colour in facts.channel_colours]
        channel["Color"] = [value - (1 << 32) if value >= 1 << 31 else value for value in signed]
    if channel:
        metadata["Channel"] = channel
    if facts.pixel_size and facts.pixel_unit in SHORT_UNITS:
        y, x = facts.pixel_size
        unit = SHORT_UNITS[facts.pixel_unit]
        metadata |= {
            "PhysicalSizeX": x,
            "PhysicalSizeXUnit": unit,
            "PhysicalSizeY": y,
            "PhysicalSizeYUnit": unit,
        }
    return metadata
