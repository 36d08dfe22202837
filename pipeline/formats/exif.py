"""EXIF and XMP blocks: what of them stays true of an upright, enlarged picture."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import IO, Any

from PIL import ExifTags, Image

# Tags of the first EXIF directory that describe the picture: caption, camera, software, date,
# artist, copyright, Windows' title, comment, author, keywords, subject and rating. The others
# (offsets, sizes, compression, thumbnails) describe the file.
KEPT_TAGS = (
    *(270, 271, 272, 305, 306, 315, 33432, 36867),
    *(40091, 40092, 40093, 40094, 40095, 18246, 18249),
)
EXIF_DIRECTORY, GPS_DIRECTORY, ORIENTATION_TAG = 0x8769, 0x8825, 274
INTEROPERABILITY_DIRECTORY, COLOUR_SPACE_TAG = 0xA005, 0xA001
# PixelXDimension, PixelYDimension, interoperability pointer, maker note (holds absolute offsets):
# false after enlarging.
DROPPED_EXIF_TAGS = (0xA002, 0xA003, 0xA005, 0x927C)


def orientation_of(exif: Image.Exif) -> int:
    """The orientation that an EXIF block states, 1 to 8, whatever else is wrong with it."""
    try:
        stated = exif.get(ORIENTATION_TAG, 1)
    except Exception:  # a block that cannot be opened states none
        return 1
    return int(stated) if stated in range(1, 9) else 1


def clean_exif(exif: Image.Exif) -> tuple[bytes | None, tuple[str, ...]]:
    """What of an EXIF block stays true after enlarging, and the names of tags that are damaged.

    None: nothing stays. A tag that cannot be written again is left out alone.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lost: list[str] = []
        clean = Image.Exif()
        for tag in KEPT_TAGS:
            if tag in exif and writable(tag, exif[tag], None, lost):
                clean[tag] = exif[tag]
        for directory in (EXIF_DIRECTORY, GPS_DIRECTORY):
            kept = {
                tag: value
                for tag, value in exif.get_ifd(directory).items()
                if tag not in DROPPED_EXIF_TAGS and writable(tag, value, directory, lost)
            }
            if kept:
                clean.get_ifd(directory).update(kept)
                clean[directory] = clean.get_ifd(directory)
        if not len(clean):
            return None, tuple(lost)
        clean[ORIENTATION_TAG] = 1
        return clean.tobytes().removeprefix(b"Exif\0\0"), tuple(lost)


def writable(tag: int, value: Any, directory: int | None, lost: list[str]) -> bool:
    """Whether a tag can be written again; appends its name to `lost` where it cannot."""
    alone = Image.Exif()
    try:
        if directory is None:
            alone[tag] = value
        else:
            alone.get_ifd(directory)[tag] = value
            alone[directory] = alone.get_ifd(directory)
        alone.tobytes()
    except Exception:  # Pillow raises what its own conversions raise
        names = ExifTags.GPSTAGS if directory == GPS_DIRECTORY else ExifTags.TAGS
        lost.append(str(names.get(tag, tag)))
        return False
    return True


def lost_tags(lost: tuple[str, ...]) -> list[str]:
    """A note on EXIF tags that were left out, if any."""
    return [f"of its EXIF block, {', '.join(lost)} is damaged and was left out"] if lost else []


def says_adobe_rgb(exif: Image.Exif) -> bool:
    """Whether a camera says Adobe RGB without a profile: DCF 2.0, interoperability index R03.

    ColorSpace 2, which no standard defines, is what some cameras write besides.
    """
    space = _directory(exif, EXIF_DIRECTORY).get(COLOUR_SPACE_TAG)
    index = _directory(exif, INTEROPERABILITY_DIRECTORY).get(1)
    return str(index or "").strip("\0 ") == "R03" or space == 2


def _directory(exif: Image.Exif, tag: int) -> Mapping[int, object]:
    """A directory of an EXIF block; empty where it is broken, or where there is none.

    Pillow before version 13 raises KeyError for some that are not there.
    """
    try:
        return exif.get_ifd(tag)
    except Exception:  # Pillow raises what its own conversions raise
        return {}


def exif_of(block: bytes) -> Image.Exif:
    """An EXIF block, with or without its "Exif" mark, opened."""
    exif = Image.Exif()
    exif.load(block if block.startswith(b"Exif\0\0") else b"Exif\0\0" + block)
    return exif


def tiff_exif(file: IO[bytes], offset: int, order: str, big: bool) -> Image.Exif:
    """The tags of the TIFF directory at byte `offset`, as EXIF; to be read while `file` is open.

    order: "<" or ">", as in struct. big: whether it is a BigTIFF.
    """
    exif = Image.Exif()
    exif.endian, exif.bigtiff = order, big
    exif.load_from_fp(file, offset)
    return exif


def upright_xmp(xmp: bytes | None) -> bytes | None:
    """An XMP packet whose tiff:Orientation says 1, because pixels are handed out upright."""
    if not xmp:
        return None
    return re.sub(rb"(tiff:Orientation\s*(?:=\s*[\"']|>\s*))[1-8]", rb"\g<1>1", xmp)
