"""The header and the metadata chunks of a PNG."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import IO

import numpy as np

from tierscale.pipeline.errors import Damaged
from tierscale.pipeline.formats.exif import (
    clean_exif,
    exif_of,
    lost_tags,
    orientation_of,
    upright_xmp,
)
from tierscale.pipeline.formats.metadata import PhotoMetadata
from tierscale.pipeline.formats.png.stream import SIGNATURE, checked_body, read_chunk
from tierscale.pipeline.formats.profile import D65, REC709, coded_profile, profile
from tierscale.pipeline.formats.source import Colour

# Colour and samples of a pixel by colour type; a palette counts as RGB of one sample.
COLOURS: dict[int, tuple[Colour, int]] = {
    0: ("grey", 1),
    2: ("rgb", 3),
    3: ("rgb", 1),
    4: ("greya", 2),
    6: ("rgba", 4),
}
DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
TEXT_LIMIT = 64 << 20
KEPT_CHUNKS = (
    *(b"PLTE", b"tRNS", b"eXIf", b"pHYs", b"acTL"),
    *(b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"cICP", b"sBIT"),
)


@dataclass(frozen=True, slots=True)
class Header:
    """The header chunk (IHDR) of a PNG.

    width, height: in pixels. depth: bits of a sample. kind: colour type. start: byte at which the
    first chunk of image data begins.
    """

    width: int
    height: int
    depth: int
    kind: int
    interlaced: bool
    start: int

    def row_bytes(self, width: int) -> int:
        """Bytes of a row of `width` pixels, without its filter byte."""
        return (width * self.depth * COLOURS[self.kind][1] + 7) // 8

    @property
    def pixel_bytes(self) -> int:
        """How far back filters look, in bytes."""
        return max(1, self.depth * COLOURS[self.kind][1] // 8)


def read_header(file: IO[bytes], uri: str) -> tuple[Header, dict[bytes, bytes]]:
    """The header and the bodies of the chunks that matter; image data must be there to its end.

    Damaged: the header is impossible, a checksum is wrong or the file is cut short.
    """
    file.seek(len(SIGNATURE))
    kind, length = read_chunk(file, uri)
    if kind != b"IHDR" or length != 13:
        raise Damaged(f"{uri}: the PNG does not begin with a header; fetch it again")
    width, height, depth, colour, _, _, interlaced = struct.unpack(
        ">IIBBBBB", checked_body(file, kind, length, uri)
    )
    sized = 0 < width < 2**31 and 0 < height < 2**31
    if not sized or depth not in DEPTHS.get(colour, ()) or interlaced > 1:
        raise Damaged(
            f"{uri}: its PNG header is impossible ({width} x {height}, {depth} bits, colour type"
            f" {colour}); fetch it again"
        )
    start, chunks = read_chunks(file, uri)
    return Header(width, height, depth, colour, bool(interlaced), start), chunks


def read_chunks(file: IO[bytes], uri: str) -> tuple[int, dict[bytes, bytes]]:
    """(byte of the first image data, bodies of KEPT_CHUNKS) of what follows the header."""
    start = 0
    chunks: dict[bytes, bytes] = {}
    kind = b""
    while kind != b"IEND":
        at = file.tell()
        kind, length = read_chunk(file, uri)
        if kind == b"IDAT" and not start:
            start = at
        if kind in KEPT_CHUNKS and length < TEXT_LIMIT:
            chunks.setdefault(kind, checked_body(file, kind, length, uri))
        elif kind == b"iTXt" and length < TEXT_LIMIT:
            body = checked_body(file, kind, length, uri)
            if body.startswith(b"XML:com.adobe.xmp\0"):
                chunks[kind] = body
        else:
            file.seek(length + 4, 1)
    if not start:
        raise Damaged(f"{uri}: the PNG holds no image data; fetch it again")
    return start, chunks


def colour_table(
    header: Header, chunks: dict[bytes, bytes], uri: str
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """(palette of a palette picture, samples of the one colour that is transparent), or None each.

    Palette: (entries, 3 or 4). Damaged: a palette picture has none.
    """
    clear = chunks.get(b"tRNS")
    if header.kind == 3:
        listed = chunks.get(b"PLTE", b"")
        if not listed or len(listed) % 3:
            raise Damaged(f"{uri}: a palette PNG without its palette; fetch it again")
        table = np.frombuffer(listed, np.uint8).reshape(-1, 3)
        if clear is not None:
            alpha = np.full((len(table), 1), 255, np.uint8)
            alpha[: len(clear), 0] = np.frombuffer(clear, np.uint8)[: len(table)]
            table = np.concatenate([table, alpha], axis=1)
        return table, None
    if clear is not None and header.kind in (0, 2) and len(clear) == 2 * COLOURS[header.kind][1]:
        return None, np.frombuffer(clear, ">u2").astype(np.uint16)
    return None, None


def png_metadata(
    chunks: dict[bytes, bytes], grey: bool, uri: str
) -> tuple[PhotoMetadata, list[str], int]:
    """Metadata, notes and EXIF orientation from the chunks of a PNG; grey: without colours.

    Refused: its colours are such as no output can carry.
    """
    notes: list[str] = []
    exif, orientation = None, 1
    if b"eXIf" in chunks:
        try:
            opened = exif_of(chunks[b"eXIf"])
            orientation = orientation_of(opened)
            exif, lost = clean_exif(opened)
            notes += lost_tags(lost)
        except Exception:  # a broken EXIF block costs the EXIF, not the picture
            notes.append("its EXIF block is damaged and was left out")
    icc = None
    code = chunks.get(b"cICP", b"")
    if len(code) == 4:  # it goes before all others
        icc = coded_profile(code[0], code[1], uri)
    elif b"iCCP" in chunks:
        _, _, packed = chunks[b"iCCP"].partition(b"\0")
        try:
            icc = zlib.decompressobj().decompress(packed[1:], TEXT_LIMIT)
        except zlib.error:
            notes.append("its ICC profile is damaged and was left out")
    elif b"sRGB" not in chunks:
        icc = stated_profile(chunks, grey)
    if b"sBIT" in chunks:
        bits = ", ".join(str(bits) for bits in chunks[b"sBIT"])
        notes.append(f"it states {bits} significant bits (sBIT), the output does not")
    if len(chunks.get(b"acTL", b"")) == 8:
        frames = struct.unpack(">I", chunks[b"acTL"][:4])[0]
        notes.append(f"took the still picture of an animation of {frames} frames")
    resolution = physical_resolution(chunks.get(b"pHYs", b""))
    metadata = PhotoMetadata(
        icc=icc,
        exif=exif,
        xmp=upright_xmp(xmp_packet(chunks.get(b"iTXt", b""))),
        resolution=resolution,
        resolution_unit="centimetre" if resolution else None,
    )
    return metadata, notes, orientation


def xmp_packet(body: bytes) -> bytes | None:
    """The XMP packet of an iTXt chunk, compressed or not; None: there is none, or it is damaged.

    Keyword, two flag bytes, language, translated keyword, text (PNG specification, 11.3.4.5).
    """
    if not body:
        return None
    packet = body[20:].split(b"\0", 2)[-1]
    if body[18:19] == b"\0":
        return packet
    try:
        return zlib.decompressobj().decompress(packet, TEXT_LIMIT)
    except zlib.error:
        return None


def stated_profile(chunks: dict[bytes, bytes], grey: bool) -> bytes | None:
    """The ICC profile of what gAMA and cHRM state; None: they state nothing, or what cannot be.

    Where gAMA alone is missing, the usual 1/2.2 holds (PNG specification, 11.3.2).
    """
    stated, points = chunks.get(b"gAMA", b""), chunks.get(b"cHRM", b"")
    gamma = int.from_bytes(stated, "big") / 100000 if len(stated) == 4 else 0.0
    if not gamma and len(points) != 32:
        return None
    white, primaries = D65, REC709
    if len(points) == 32:
        numbers = tuple(number / 100000 for number in struct.unpack(">8I", points))
        if min(numbers[1::2]) <= 0 or max(numbers) >= 1:
            return None
        white, primaries = numbers[:2], numbers[2:]
    return profile(1 / (gamma or 1 / 2.2), white=white, primaries=None if grey else primaries)


def physical_resolution(body: bytes) -> tuple[float, float] | None:
    """Pixels per centimetre, x then y, from a pHYs chunk; None where it states no unit."""
    if len(body) != 9:
        return None
    x, y, unit = struct.unpack(">IIB", body)
    return (x / 100, y / 100) if unit == 1 and x and y else None
