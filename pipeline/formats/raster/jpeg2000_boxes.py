"""The boxes of a JPEG 2000 file that say what its components are: colour, alpha, resolution."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from tierscale.pipeline.errors import Damaged, Refused
from tierscale.pipeline.formats.blocks.xmp import true_xmp
from tierscale.pipeline.formats.metadata import PhotoMetadata
from tierscale.pipeline.formats.source import Alpha

BOXES_MARK = b"\0\0\0\x0cjP  "
# UUIDs of boxes that hold metadata: XMP, and others by name (GeoJP2 is a small GeoTIFF).
XMP_UUID = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
UUIDS: Mapping[bytes, str] = {
    b"JpgTiffExif->JP2": "EXIF",
    bytes.fromhex("33c7a4d2b81d4723a0baf1a3e097ad38"): "IPTC",
    bytes.fromhex("b14bf8bd083d4b43a5ae8cd7d5a6ce03"): "GeoJP2",
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
    component is said to be opacity. notes: on what an output does not hold.
    """

    space: int | None
    alpha: Alpha | None
    metadata: PhotoMetadata
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
    """What the boxes before the codestream say; of a bare codestream, nothing.

    Refused: the colours are indices of a palette.
    """
    found: dict[bytes, bytes] = {}
    others: dict[str, None] = {}
    file.seek(0)
    if file.read(8) == BOXES_MARK:
        for kind, start, stop in boxes(file, 0, os.fstat(file.fileno()).st_size, uri):
            if kind == b"jp2c":
                break
            if kind in (b"colr", b"cdef", b"resc", b"resd", b"pclr"):
                file.seek(start)
                found.setdefault(kind, file.read(stop - start))
            elif kind == b"uuid" and stop - start >= 16:
                file.seek(start)
                mark = file.read(16)
                if mark == XMP_UUID:
                    found.setdefault(mark, file.read(stop - start - 16))
                others |= {} if mark == XMP_UUID else {UUIDS.get(mark, f"uuid {mark.hex()}"): None}
            elif kind in (b"xml ", b"asoc"):
                others["GML or other XML"] = None
    if b"pclr" in found:
        raise Refused(f"{uri}: JPEG 2000 with a palette is not supported; convert it to TIFF")
    space, icc = colour_of(found.get(b"colr", b""))
    density = resolution_of(found.get(b"resc") or found.get(b"resd") or b"")
    metadata = PhotoMetadata(
        icc=icc,
        xmp=true_xmp(found.get(XMP_UUID)),
        srgb=space == SRGB,
        resolution=density,
        resolution_unit="centimetre" if density else None,
    )
    notes = (f"its boxes {', '.join(others)} were left out",) if others else ()
    return Meaning(space, opacity_of(found.get(b"cdef", b"")), metadata, notes)


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
