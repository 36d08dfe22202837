"""EXIF in a TIFF: tags of the first page, and EXIF and GPS directories behind the pixels."""

from __future__ import annotations

import struct
from typing import Any

import tifffile

from tierscale.pipeline.formats.blocks.directories import ASCII, UTF8, Entry, directory_bytes
from tierscale.pipeline.formats.blocks.exif import (
    EXIF_DIRECTORY,
    GPS_DIRECTORY,
    KEPT_TAGS,
    block_directories,
)

DESCRIPTION_TAG, SOFTWARE_TAG = 270, 305
# tifffile does not write tags 34665 and 34853. They are written under the number below each, which
# is not in use, and then renumbered; the order of tags stays ascending.
STAND_INS = {EXIF_DIRECTORY: EXIF_DIRECTORY - 1, GPS_DIRECTORY: GPS_DIRECTORY - 1}


def directory_tags(block: bytes | None, big: bool) -> tuple[bytes | None, list[tuple[Any, ...]]]:
    """The image description and the extra tags for tifffile of an EXIF block; big: in a BigTIFF.

    The software is tierscale now. Pointers to directories among the tags are 0 until
    write_directories() sets them.
    """
    if not block:
        return None, []
    first, parts = block_directories(block)
    tags = [
        extra_tag(tag, first[tag])
        for tag in KEPT_TAGS
        if tag in first and tag not in (DESCRIPTION_TAG, SOFTWARE_TAG)
    ]
    tags += [(STAND_INS[tag], "Q" if big else "I", 1, 0, True) for tag in parts]
    description = first.get(DESCRIPTION_TAG)
    return None if description is None else description.data.rstrip(b"\0") or None, tags


def extra_tag(tag: int, entry: Entry) -> tuple[Any, ...]:
    """An entry as an extra tag of tifffile: text as the bytes that were read."""
    if entry.kind in (ASCII, UTF8):
        return tag, "s", 0, entry.data.rstrip(b"\0"), True
    return tag, entry.kind, entry.count, entry.data, True


def write_directories(path: str, block: bytes | None) -> None:
    """Append EXIF and GPS directories to the little-endian TIFF at `path`, and point to them.

    The pointers are in the first page, where directory_tags() put them.
    """
    if not block:
        return
    _, parts = block_directories(block)
    with tifffile.TiffFile(path) as tif:
        big = tif.is_bigtiff
        entries = {tag: tif.pages.first.tags[STAND_INS[tag]] for tag in parts}
        offsets = {tag: (entry.offset, entry.valueoffset) for tag, entry in entries.items()}
    with open(path, "r+b") as file:
        for tag, (entry, value) in offsets.items():
            start = file.seek(0, 2)
            start += file.write(b"\0" * (-start % 16))
            file.write(directory_bytes(parts[tag], start, big))
            file.seek(value)
            file.write(struct.pack("<Q" if big else "<I", start))
            file.seek(entry)
            file.write(struct.pack("<H", tag))
