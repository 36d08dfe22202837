"""The header and the chunks of a PNG."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import IO

import numpy as np

from tierscale.pipeline.errors import Damaged
from tierscale.pipeline.formats.png.stream import SIGNATURE, checked_body, read_chunk
from tierscale.pipeline.formats.png.texts import TEXT_LIMIT
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
KEPT_CHUNKS = (
    *(b"PLTE", b"tRNS", b"eXIf", b"pHYs", b"acTL"),
    *(b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"cICP", b"sBIT"),
)
TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt")
# Chunks of which pixels are not made and that say nothing of the picture: time of the last change,
# background of a viewer, histogram and suggested palettes, frames of an animation.
PASSED_CHUNKS = (b"IDAT", b"IEND", b"tIME", b"bKGD", b"hIST", b"sPLT", b"fcTL", b"fdAT")


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


@dataclass(frozen=True, slots=True)
class Chunks:
    """The chunks that matter, but for the image data.

    bodies: of KEPT_CHUNKS. texts: kind and body of text chunks. others: kinds that are not known.
    """

    bodies: dict[bytes, bytes] = field(default_factory=dict)
    texts: list[tuple[bytes, bytes]] = field(default_factory=list)
    others: set[bytes] = field(default_factory=set)


def read_header(file: IO[bytes], uri: str) -> tuple[Header, Chunks]:
    """The header and the chunks that matter; image data must be there to its end.

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


def read_chunks(file: IO[bytes], uri: str) -> tuple[int, Chunks]:
    """(byte of the first image data, chunks) of what follows the header."""
    start = 0
    chunks = Chunks()
    kind, left = b"", TEXT_LIMIT
    while kind != b"IEND":
        at = file.tell()
        kind, length = read_chunk(file, uri)
        if kind == b"IDAT" and not start:
            start = at
        if kind in KEPT_CHUNKS and length < TEXT_LIMIT:
            chunks.bodies.setdefault(kind, checked_body(file, kind, length, uri))
        elif kind in TEXT_CHUNKS and length < left:
            chunks.texts.append((kind, checked_body(file, kind, length, uri)))
            left -= length
        else:
            if kind not in PASSED_CHUNKS:
                chunks.others.add(kind)
            file.seek(length + 4, 1)
    if not start:
        raise Damaged(f"{uri}: the PNG holds no image data; fetch it again")
    return start, chunks


def colour_table(
    header: Header, chunks: Chunks, uri: str
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """(palette of a palette picture, samples of the one colour that is transparent), or None each.

    Palette: (entries, 3 or 4). Damaged: a palette picture has none.
    """
    clear = chunks.bodies.get(b"tRNS")
    if header.kind == 3:
        listed = chunks.bodies.get(b"PLTE", b"")
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
