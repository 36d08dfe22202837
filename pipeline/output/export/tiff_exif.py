"""EXIF in a TIFF: its first directory becomes tags of the page, its EXIF and GPS directories are
added behind the pixels.
"""

from __future__ import annotations

import struct
import warnings
from typing import Any

import tifffile
from PIL import Image, TiffImagePlugin

from tierscale.pipeline.formats.exif import EXIF_DIRECTORY, GPS_DIRECTORY, exif_of

DESCRIPTION_TAG = 270
# tifffile does not write tags 34665 and 34853. They are written under the number below, which no
# one uses, and then renumbered; directories stay in order.
STAND_INS = {EXIF_DIRECTORY: EXIF_DIRECTORY - 1, GPS_DIRECTORY: GPS_DIRECTORY - 1}
# Plain text of the first directory: maker, model, time, artist, copyright. The software is
# tierscale now.
TEXT_TAGS = (271, 272, 306, 315, 33432)


def directories(exif: Image.Exif) -> dict[int, dict[int, Any]]:
    """The EXIF and GPS directories that hold anything, by the tag that points to them."""
    return {tag: held for tag in (EXIF_DIRECTORY, GPS_DIRECTORY) if (held := exif.get_ifd(tag))}


def directory_tags(block: bytes | None, big: bool) -> tuple[str | None, list[tuple[Any, ...]]]:
    """(image description, extra tags for tifffile) of an EXIF block; `write_directories` makes the
    pointers among them true.
    """
    if not block:
        return None, []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exif = exif_of(block)
        texts = {tag: str(exif[tag]) for tag in (DESCRIPTION_TAG, *TEXT_TAGS) if tag in exif}
        tags: list[tuple[Any, ...]] = [
            (tag, "s", 0, texts[tag], True) for tag in TEXT_TAGS if texts.get(tag, "é").isascii()
        ]
        tags += [(STAND_INS[tag], "Q" if big else "I", 1, 0, True) for tag in directories(exif)]
    description = texts.get(DESCRIPTION_TAG)
    return (description if description and description.isascii() else None), tags


def write_directories(path: str, block: bytes | None) -> None:
    """Append the EXIF and GPS directories to the little-endian TIFF at `path` and let its first
    page point to them.
    """
    if not block:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        held = directories(exif_of(block))
        with tifffile.TiffFile(path) as tif:
            big = tif.is_bigtiff
            entries = {tag: tif.pages.first.tags[STAND_INS[tag]] for tag in held}
            places = {tag: (entry.offset, entry.valueoffset) for tag, entry in entries.items()}
        with open(path, "r+b") as file:
            for tag, (entry, value) in places.items():
                start = file.seek(0, 2)
                start += file.write(b"\0" * (-start % 16))
                file.write(directory_bytes(held[tag], tag, start, big))
                file.seek(value)
                file.write(struct.pack("<Q" if big else "<I", start))
                file.seek(entry)
                file.write(struct.pack("<H", tag))


def directory_bytes(held: dict[int, Any], tag: int, start: int, big: bool) -> bytes:
    """A directory as it must lie at byte `start` of a little-endian TIFF or BigTIFF."""
    head = (
        b"II\x2b\0\x08\0\0\0" + struct.pack("<Q", start)
        if big
        else b"II\x2a\0" + struct.pack("<I", 8)
    )
    directory = TiffImagePlugin.ImageFileDirectory_v2(head, group=tag)
    for key, value in held.items():
        directory[key] = value
    return directory.tobytes(start)
