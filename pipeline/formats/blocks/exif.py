"""EXIF blocks: what they say, and what of it stays true of an upright, enlarged picture."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from PIL import ExifTags

from tierscale.pipeline.formats.blocks.directories import (
    LONG,
    SHORT,
    Entry,
    Layout,
    directory_bytes,
    read_directory,
)

# Tags of the first EXIF directory that describe the picture: name of the document, caption, camera,
# name of the page, software, date, artist, computer, copyright, time, Windows' rating, title,
# comment, author, keywords, subject. The others (offsets, sizes, compression, thumbnails) describe
# the file.
TEXT_TAGS = (269, 270, 271, 272, 285, 305, 306, 315, 316, 33432)
KEPT_TAGS = (*TEXT_TAGS, 18246, 18249, 36867, *range(40091, 40096))
EXIF_DIRECTORY, GPS_DIRECTORY, ORIENTATION_TAG = 0x8769, 0x8825, 274
INTEROPERABILITY_DIRECTORY, COLOUR_SPACE_TAG, MAKER_NOTE = 0xA005, 0xA001, 0x927C
WIDE_DENSITY, HIGH_DENSITY, DENSITY_UNIT = 282, 283, 296
# PixelXDimension, PixelYDimension, interoperability pointer, maker note (holds absolute offsets):
# false after enlarging.
DROPPED_EXIF_TAGS = (0xA002, 0xA003, INTEROPERABILITY_DIRECTORY, MAKER_NOTE)
UNITS: Mapping[int, str] = {2: "inch", 3: "centimetre"}
LOOKED_AT = frozenset(
    (
        *(*KEPT_TAGS, EXIF_DIRECTORY, GPS_DIRECTORY, ORIENTATION_TAG),
        *(WIDE_DENSITY, HIGH_DENSITY, DENSITY_UNIT),
    )
)
DAMAGED = "its EXIF block is damaged and was left out"

Directory = dict[int, Entry]


@dataclass(frozen=True, slots=True)
class ExifFacts:
    """What an EXIF block says.

    block: what of it stays true after enlarging; it starts with a TIFF header. orientation: 1 to 8;
    None: it states none. resolution: pixels per `resolution_unit`, x then y. adobe_rgb: whether a
    camera says that the colours are Adobe RGB. notes: on what is damaged or left out.
    """

    block: bytes | None = None
    orientation: int | None = None
    resolution: tuple[float, float] | None = None
    resolution_unit: str | None = None
    adobe_rgb: bool = False
    notes: tuple[str, ...] = ()


def exif_facts(block: bytes | None) -> ExifFacts:
    """What an EXIF block says, with or without its "Exif" mark; None: there is none."""
    if not block:
        return ExifFacts()
    block = block.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None or len(block) < 8:
        return ExifFacts(notes=(DAMAGED,))
    start = struct.unpack_from(order + "I", block, 4)[0]
    return directory_facts(in_block(block, order), start)


def in_block(block: bytes, order: str = "<") -> Layout:
    """The layout of an EXIF block."""
    return Layout(lambda offset, length: block[offset : offset + length], order)


def directory_facts(layout: Layout, offset: int, without: tuple[int, ...] = ()) -> ExifFacts:
    """What the directory at byte `offset` of a file or block says, as EXIF.

    without: tags that say something else here.
    """
    try:
        first, lost = read_directory(layout, offset, LOOKED_AT)
    except ValueError:
        return ExifFacts(notes=(DAMAGED,))
    names = _names(lost, ExifTags.TAGS)
    pointers = EXIF_DIRECTORY, GPS_DIRECTORY
    parts = {pointer: _pointed(layout, first, pointer, names) for pointer in pointers}
    exif = parts[EXIF_DIRECTORY]
    interoperability = _pointed(layout, exif, INTEROPERABILITY_DIRECTORY, [])
    kept = {tag: first[tag] for tag in KEPT_TAGS if tag in first and tag not in without}
    density, unit = _density(first)
    orientation = first[ORIENTATION_TAG].numbers[:1] if ORIENTATION_TAG in first else ()
    notes = [f"of its EXIF block, {', '.join(names)} is damaged and was left out"] if names else []
    if MAKER_NOTE in exif:
        notes.append("the maker note of its EXIF block was left out")
    return ExifFacts(
        block=_block(kept, parts),
        orientation=int(orientation[0]) if orientation and orientation[0] in range(1, 9) else None,
        resolution=density,
        resolution_unit=unit,
        adobe_rgb=_says_adobe_rgb(exif, interoperability),
        notes=tuple(notes),
    )


def _names(tags: set[int], known: Mapping[int, str]) -> list[str]:
    """Names of tags, or their numbers."""
    return [str(known.get(tag, tag)) for tag in sorted(tags)]


def _pointed(
    layout: Layout, entries: Mapping[int, Entry], pointer: int, lost: list[str]
) -> Directory:
    """The directory that a tag points to. Appends names of what is damaged in it to `lost`."""
    if pointer not in entries:
        return {}
    try:
        found, missing = read_directory(layout, int(sum(entries[pointer].numbers[:1])))
    except ValueError:
        lost += _names({pointer}, ExifTags.TAGS)
        return {}
    known = ExifTags.GPSTAGS if pointer == GPS_DIRECTORY else ExifTags.TAGS
    lost += _names(missing - {*DROPPED_EXIF_TAGS}, known)
    return found


def _density(first: Directory) -> tuple[tuple[float, float] | None, str | None]:
    """(pixels per unit, x then y; the unit) of the first directory; None each: there is none."""
    unit = UNITS.get(int(sum(first[DENSITY_UNIT].numbers[:1])) if DENSITY_UNIT in first else 2)
    x, y = (first[tag].numbers[:1] if tag in first else () for tag in (WIDE_DENSITY, HIGH_DENSITY))
    if unit is None or not x or not y or x[0] <= 0 or y[0] <= 0:
        return None, None
    return (x[0], y[0]), unit


def _says_adobe_rgb(exif: Directory, interoperability: Directory) -> bool:
    """Whether a camera says Adobe RGB without a profile: DCF 2.0, interoperability index R03.

    ColorSpace 2, which no standard defines, is what some cameras write besides.
    """
    space = exif[COLOUR_SPACE_TAG].numbers[:1] if COLOUR_SPACE_TAG in exif else ()
    index = interoperability[1].text.strip() if 1 in interoperability else ""
    return index == "R03" or space == (2,)


def _block(first: Directory, parts: Mapping[int, Directory]) -> bytes | None:
    """An EXIF block of what stays true; None: nothing does."""
    kept = {
        pointer: {tag: entry for tag, entry in entries.items() if tag not in DROPPED_EXIF_TAGS}
        for pointer, entries in parts.items()
    }
    kept = {pointer: entries for pointer, entries in kept.items() if entries}
    if not first and not kept:
        return None
    first = {**first, ORIENTATION_TAG: Entry(SHORT, 1, b"\1\0")}
    first |= {pointer: Entry(LONG, 1, bytes(4)) for pointer in kept}
    at = 8 + len(directory_bytes(first, 8))
    behind = b""
    for pointer, entries in kept.items():
        first[pointer] = Entry(LONG, 1, struct.pack("<I", at + len(behind)))
        behind += directory_bytes(entries, at + len(behind))
    return b"II*\0\x08\0\0\0" + directory_bytes(first, 8) + behind


def block_directories(block: bytes) -> tuple[Directory, dict[int, Directory]]:
    """The first directory of a block that exif_facts() made, and those that it points to."""
    first, _ = read_directory(in_block(block), 8)
    found = {
        tag: _pointed(in_block(block), first, tag, []) for tag in (EXIF_DIRECTORY, GPS_DIRECTORY)
    }
    return first, {tag: entries for tag, entries in found.items() if entries}
