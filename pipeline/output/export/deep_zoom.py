"""An output as a Deep Zoom image: a folder of small tiles that any web server can hand out."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import zarr
from PIL import Image

from tierscale.pipeline.errors import Refused
from tierscale.pipeline.inference.pyramid import Averaging, half
from tierscale.pipeline.output.export.common import Exported, Progress, whole_folder, with_progress
from tierscale.pipeline.output.export.png import straight

# Name of the description; the tiles lie in a folder beside it.
INDEX = "image.dzi"
# Side of a tile without its overlap, and pixels that each shares with its neighbours.
TILE, OVERLAP = 510, 1
# Tiles beside each other that are read at a time.
SPAN = 16
QUALITY = 90


@dataclass(frozen=True, slots=True)
class Zoom:
    """One level of a Deep Zoom image. number: of the level, 0 measures one pixel. size: height and
    width. pixels: a level of the output, or an array in memory (c, y, x).
    """

    number: int
    size: tuple[int, int]
    pixels: zarr.Array | np.ndarray

    @property
    def tiles(self) -> int:
        """Number of tiles."""
        return -(-self.size[0] // TILE) * -(-self.size[1] // TILE)


def export_deep_zoom(image: Exported, out: str, *, progress: Progress | None = None) -> None:
    """Write the folder `out` with image.dzi and image_files/LEVEL/COLUMN_ROW.jpg, or .png.

    Tiles are JPEG of quality 90, and PNG where there is alpha; each has the colour profile.
    Levels go down to one pixel. Refused: the image is not of 8 bits, or has separate channels.
    Source: "Deep Zoom File Format Overview", Microsoft, 2011. progress: (tiles written, all).
    """
    full = image.levels()[0]
    check_pixels(image, full, out)
    suffix = "jpg" if full.shape[0] in (1, 3) else "png"
    with whole_folder(out) as temporary:
        Path(temporary, INDEX).write_text(description(full.shape, suffix))
        levels = zooms(image)
        total = sum(level.tiles for level in levels)
        made = with_progress(tiles_of(image, levels), total, progress)
        for number, column, row, tile in made:
            folder = Path(temporary, "image_files", str(number))
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{column}_{row}.{suffix}").write_bytes(encoded(image, tile, suffix))


def check_pixels(image: Exported, full: zarr.Array, out: str) -> None:
    """Refuse what the tiles cannot hold."""
    if full.dtype != np.uint8:
        raise Refused(
            f"{out}: tiles of Deep Zoom hold 8 bits, not {full.dtype}; export to TIFF or OME-Zarr"
        )
    if image.colour == "channels" and full.shape[0] > 1:
        raise Refused(
            f"{out}: tiles of Deep Zoom hold grey or RGB, not {full.shape[0]} separate channels;"
            " export to TIFF or OME-Zarr"
        )


def description(shape: tuple[int, ...], suffix: str) -> str:
    """The XML of an image (c, y, x)."""
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<Image xmlns="http://schemas.microsoft.com/deepzoom/2008"'
        f' Format="{suffix}" Overlap="{OVERLAP}" TileSize="{TILE}">'
        f'<Size Height="{shape[1]}" Width="{shape[2]}"/></Image>\n'
    )


def zooms(image: Exported) -> list[Zoom]:
    """All levels, full resolution first: those of the output, and smaller ones made from them."""
    stored = image.levels()
    number = max(max(stored[0].shape[1:]) - 1, 0).bit_length()
    found = [
        Zoom(number - at, (level.shape[1], level.shape[2]), level)
        for at, level in enumerate(stored)
    ]
    averaging = Averaging(image.alpha == "straight", image.metadata.nodata, True)
    pixels = image.read(stored[-1], (slice(None),))
    while found[-1].number > 0:
        pixels = half((1, 1), (0, 0), partial(_whole, pixels), averaging)
        found.append(Zoom(found[-1].number - 1, (pixels.shape[1], pixels.shape[2]), pixels))
    return found


def _whole(pixels: np.ndarray, shard: tuple[int, int]) -> np.ndarray:
    """A level of one shard."""
    return pixels


def tiles_of(image: Exported, levels: list[Zoom]) -> Iterator[tuple[int, int, int, np.ndarray]]:
    """(level, column, row, pixels (c, h, w)) of all tiles; several are read at a time."""
    for level in levels:
        height, width = level.size
        starts = itertools.product(range(0, height, TILE), range(0, width, SPAN * TILE))
        for y, x in starts:
            rows = slice(max(0, y - OVERLAP), min(height, y + TILE + OVERLAP))
            first = max(0, x - OVERLAP)
            columns = slice(first, min(width, x + SPAN * TILE + OVERLAP))
            block = _read(image, level, (slice(None), rows, columns))
            for left in range(x, min(width, x + SPAN * TILE), TILE):
                begin = max(0, left - OVERLAP) - first
                end = min(width, left + TILE + OVERLAP) - first
                yield level.number, left // TILE, y // TILE, block[:, :, begin:end]


def _read(image: Exported, level: Zoom, part: tuple[slice, ...]) -> np.ndarray:
    """A part of a level as it is shown: alpha is straight."""
    pixels = level.pixels
    block = image.read(pixels, part) if isinstance(pixels, zarr.Array) else pixels[part]
    return straight(block) if image.alpha == "premultiplied" else block


def encoded(image: Exported, tile: np.ndarray, suffix: str) -> bytes:
    """A tile (c, h, w) as a JPEG or PNG file."""
    pixels = np.ascontiguousarray(tile[0] if len(tile) == 1 else tile.transpose(1, 2, 0))
    picture = Image.fromarray(pixels)
    file = io.BytesIO()
    options = {"quality": QUALITY, "subsampling": 0} if suffix == "jpg" else {"compress_level": 6}
    profile = {"icc_profile": image.metadata.icc} if image.metadata.icc else {}
    picture.save(file, "JPEG" if suffix == "jpg" else "PNG", **options, **profile)
    return file.getvalue()
