"""EXIF in a TIFF: tags of the first page, and EXIF and GPS directories behind the pixels."""

from __future__ import annotations

import struct
import warnings
from typing import Any

import tifffile
from PIL import Image, TiffImagePlugin

from tierscale.pipeline.formats.exif import EXIF_DIRECTORY, GPS_DIRECTORY, exif_of

DESCRIPTION_TAG = 270
# tifffile does not write tags 34665 and 34853. They are written under the number below each, which
# is not in use, and then renumbered; the order of tags stays ascending.
STAND_INS = {EXIF_DIRECTORY: EXIF_DIRECTORY - 1, GPS_DIRECTORY: GPS_DIRECTORY - 1}
# Plain text of the first directory: maker, model, time, artist, copyright. The software is
# tierscale now.
TEXT_TAGS = (271, 272, 306, 315, 33432)


def directories(exif: Image.Exif) -> dict[int, dict[int, Any]]:
    """The EXIF and GPS directories that hold anything, by the tag that points to them."""
    parts = {tag: exif.get_ifd(tag) for tag in (EXIF_DIRECTORY, GPS_DIRECTORY)}
    return {tag: entries for tag, entries in parts.items() if entries}


def directory_tags(block: bytes | None, big: bool) -> tuple[str | None, list[tuple[Any, ...]]]:
    """The image description and the extra tags for tifffile of an EXIF block; big: in a BigTIFF.

    Pointers to directories among the tags are 0 until write_directories() sets them.
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
    """Append EXIF and GPS directories to the little-endian TIFF at `path`, and point to them.

    The pointers are in the first page, where directory_tags() put them.
    """
    if not block:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parts = directories(exif_of(block))
        with tifffile.TiffFile(path) as tif:
            big = tif.is_bigtiff
            entries = {tag: tif.pages.first.tags[STAND_INS[tag]] for tag in parts}
            offsets = {tag: (entry.offset, entry.valueoffset) for tag, entry in entries.items()}
        with open(path, "r+b") as file:
            for tag, (entry, value) in offsets.items():
                start = file.seek(0, 2)
                start += file.write(b"\0" * (-start % 16))
                file.write(directory_bytes(parts[tag], tag, start, big))
                file.seek(value)
                file.write(struct.pack("<Q" if big else "<I", start))
                file.seek(entry)
                file.write(struct.pack("<H", tag))


def directory_bytes(entries: dict[int, Any], tag: int, start: int, big: bool) -> bytes:
    """A directory as it lies at byte `start` of a little-endian TIFF, or of a BigTIFF."""
    head = (
        b"II\x2b\0\x08\0\0\0" + struct.pack("<Q", start)
        if big
        else b"II\x2a\0" + struct.pack("<I", 8)
    )
    directory = TiffImagePlugin.ImageFileDirectory_v2(head, group=tag)
    for key, value in entries.items():
        directory[key] = value
    return directory.tobytes(start)
