"""The boxes of a JPEG 2000 file that say what its components are: colour, alpha, resolution."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import tifffile

from tierscale.pipeline.errors import Damaged, Refused, one_line
from tierscale.pipeline.formats.blocks.exif import exif_facts
from tierscale.pipeline.formats.blocks.iptc import iptc_of
from tierscale.pipeline.formats.blocks.xmp import true_xmp, xmp_orientation
from tierscale.pipeline.formats.metadata import PhotoMetadata
from tierscale.pipeline.formats.source import Alpha
from tierscale.pipeline.formats.tiff.metadata import geo_tags

BOXES_MARK = b"\0\0\0\x0cjP  "
# UUIDs of boxes that hold metadata which files of other kinds have too; some have two.
XMP_UUID = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
EXIF_UUID = b"JpgTiffExif->JP2"
IPTC_UUID = bytes.fromhex("33c7a4d2b81d4723a0baf1a3e097ad38")
GEO_UUID = bytes.fromhex("b14bf8bd083d4b43a5ae8cd7d5a6ce03")
KNOWN: Mapping[bytes, bytes] = {
    **{mark: mark for mark in (XMP_UUID, EXIF_UUID, IPTC_UUID, GEO_UUID)},
    bytes.fromhex("0537cdab9d0c4431a72afa561f2a113e"): EXIF_UUID,
    bytes.fromhex("09a14e97c0b442e0bebf36df6f0ce36f"): IPTC_UUID,
    bytes.fromhex("2c4c0100850440b9a03e562148d6dfeb"): IPTC_UUID,  # Photoshop's resources
}
# Boxes that hold other boxes.
PARENTS = (b"jp2h", b"res ")
# Enumerated colour spaces (ISO/IEC 15444-1, table I.10; 15444-2, table M.25).
CMYK, SRGB, GREY, SYCC = 12, 16, 17, 18
COLOURS: Mapping[int, int] = {CMYK: 4, SRGB: 3, GREY: 1, SYCC: 3}


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a JPEG 2000 file says of its components.

    space: enumerated colour space, None where a profile or nothing tells. alpha: None where no
    component is said to be opacity. orientation: 1 to 8. notes: on what an output does not hold.
    """

    space: int | None
    alpha: Alpha | None
    metadata: PhotoMetadata
    orientation: int = 1
    notes: tuple[str, ...] = ()


def boxes(file: BinaryIO, at: int, stop: int, uri: str) -> Iterator[tuple[bytes, int, int]]:
    """(kind, first byte, end) of the contents of boxes in [at, stop), and of the boxes in them.

    ISO/IEC 15444-1, I.4. Damaged: a box is shorter than its header, or ends beyond `stop`.
    """
    while at < stop:
        file.seek(at)
        head = file.read(16)
        if len(head) < 8 or at + 8 > stop:
            raise Damaged(f"{uri}: the file ends inside a box at byte {at}; fetch it again")
        size, kind = struct.unpack(">I4s", head[:8])
        start = at + 8
        if size == 1 and len(head) == 16:
            size, start = struct.unpack(">Q", head[8:])[0], at + 16
        elif size == 0:
            size = stop - at
        if at + size < start or at + size > stop:
            raise Damaged(
                f"{uri}: its box {kind.decode('latin-1')!r} at byte {at} states {size} bytes, of"
                f" {stop - at} that are there; the file is damaged or cut short, fetch it again"
            )
        yield kind, start, at + size
        if kind in PARENTS:
            yield from boxes(file, start, at + size, uri)
        at += size


def read_meaning(file: BinaryIO, uri: str) -> Meaning:
    """What the boxes before and after the codestream say; of a bare codestream, nothing.

    Refused: the colours are indices of a palette.
    """
    found, notes = told(file, uri)
    if b"pclr" in found:
        raise Refused(f"{uri}: JPEG 2000 with a palette is not supported; convert it to TIFF")
    space, icc = colour_of(found.get(b"colr", b""))
    density = resolution_of(found.get(b"resc") or found.get(b"resd") or b"")
    exif, xmp = exif_facts(found.get(EXIF_UUID)), found.get(XMP_UUID)
    unit = "centimetre" if density else exif.resolution_unit
    orientation = exif.orientation or xmp_orientation(xmp)
    geo = geo_of(found.get(GEO_UUID), notes)
    if geo and orientation > 1:
        notes.append("it was set upright, without its georeferencing")
    elif orientation > 1:
        notes.append("it was set upright")
    metadata = PhotoMetadata(
        icc=icc,
        srgb=space == SRGB,
        exif=exif.block,
        xmp=true_xmp(xmp),
        iptc=iptc_of(found.get(IPTC_UUID)),
        resolution=density or exif.resolution,
        resolution_unit=unit,
        geo=geo if orientation == 1 else None,
    )
    if orientation >= 5:
        metadata = metadata.transposed()
    alpha = opacity_of(found.get(b"cdef", b""))
    return Meaning(space, alpha, metadata, orientation, (*exif.notes, *notes))


def told(file: BinaryIO, uri: str) -> tuple[dict[bytes, bytes], list[str]]:
    """(contents of the boxes that are read, by kind or UUID; notes on others).

    Damage behind the codestream, where no pixel lies, is told in a note.
    """
    found: dict[bytes, bytes] = {}
    others: dict[str, None] = {}
    notes: list[str] = []
    file.seek(0)
    if file.read(8) != BOXES_MARK:
        return found, notes
    pixels = False
    try:
        for kind, start, stop in boxes(file, 0, os.fstat(file.fileno()).st_size, uri):
            pixels |= kind == b"jp2c"
            file.seek(start)
            if kind in (b"colr", b"cdef", b"resc", b"resd", b"pclr"):
                found.setdefault(kind, file.read(stop - start))
            elif kind == b"uuid" and stop - start >= 16:
                mark = file.read(16)
                if mark in KNOWN:
                    found.setdefault(KNOWN[mark], file.read(stop - start - 16))
                others |= {} if mark in KNOWN else {f"uuid {mark.hex()}": None}
            elif kind in (b"xml ", b"asoc"):
                others["GML or other XML"] = None
    except Damaged:
        if not pixels:
            raise
        notes.append("what follows its image cannot be read and was left out")
    notes += [f"its boxes {', '.join(others)} were left out"] if others else []
    return found, notes


def geo_of(body: bytes | None, notes: list[str]) -> dict[str, Any] | None:
    """GeoTIFF tags of a GeoJP2 box, which holds a small GeoTIFF; appends to `notes`."""
    if body is None:
        return None
    try:
        with tifffile.TiffFile(io.BytesIO(body)) as tif:
            return geo_tags(tif.pages.first)
    except (tifffile.TiffFileError, ValueError, IndexError, struct.error) as error:
        notes.append(f"its GeoJP2 box cannot be read ({one_line(error)}) and was left out")
        return None


def colour_of(body: bytes) -> tuple[int | None, bytes | None]:
    """(enumerated colour space, ICC profile) of a colr box, one of them or neither."""
    if len(body) >= 7 and body[0] == 1:
        return struct.unpack(">I", body[3:7])[0], None
    if len(body) >= 43 and body[0] in (2, 3) and body[39:43] == b"acsp":
        return None, body[3:]
    return None, None


def opacity_of(body: bytes) -> Alpha | None:
    """Kind of alpha by a cdef box: the first channel of type 1 or 2 that covers the whole image."""
    for at in range(2, len(body) - 5, 6):
        kind = struct.unpack(">3H", body[at : at + 6])[1]
        if kind in (1, 2):
            return "straight" if kind == 1 else "premultiplied"
    return None


def resolution_of(body: bytes) -> tuple[float, float] | None:
    """Pixels per centimetre, x then y, of a resc or resd box, which state them per metre."""
    if len(body) < 10:
        return None
    up_y, down_y, up_x, down_x, ten_y, ten_x = struct.unpack(">4H2b", body[:10])
    if not (up_y and down_y and up_x and down_x):
        return None
    return up_x / down_x * 10.0 ** (ten_x - 2), up_y / down_y * 10.0 ** (ten_y - 2)
