"""PNG read row by row in bounded memory (interlaced PNG whole), with every checksum verified and 16
bits kept.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from typing import IO

import numpy as np

from tierscale.pipeline.errors import Damaged
from tierscale.pipeline.formats import samples as arithmetic
from tierscale.pipeline.formats.fingerprint import file_identity
from tierscale.pipeline.formats.metadata import PhotoMetadata, clean_exif, exif_of, upright_xmp
from tierscale.pipeline.formats.orientation import Turned, turned_bytes
from tierscale.pipeline.formats.png.stream import (
    PIECE_BYTES,
    SIGNATURE,
    Inflated,
    checked_body,
    read_chunk,
    unfiltered,
)
from tierscale.pipeline.formats.source import (
    Alpha,
    Colour,
    Pixels,
    Source,
    check_decode,
    decoding,
    ingest_bytes,
)
from tierscale.pipeline.plan.options import Selection

BAND_BYTES = 8 << 20
COLOURS: dict[int, tuple[Colour, int]] = {
    0: ("grey", 1),
    2: ("rgb", 3),
    3: ("rgb", 1),
    4: ("greya", 2),
    6: ("rgba", 4),
}
WITH_ALPHA: dict[Colour, Colour] = {"grey": "greya", "rgb": "rgba"}
DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
# Adam7: first row, first column, row step, column step of each pass.
PASSES = (
    (0, 0, 8, 8),
    (0, 4, 8, 8),
    (4, 0, 8, 4),
    (0, 2, 4, 4),
    (2, 0, 4, 2),
    (0, 1, 2, 2),
    (1, 0, 2, 1),
)
TEXT_LIMIT = 64 << 20
KEPT_CHUNKS = (b"PLTE", b"tRNS", b"iCCP", b"eXIf", b"pHYs", b"acTL")


@dataclass(frozen=True, slots=True)
class Header:
    """IHDR: size in pixels, bits of a sample, colour type, whether interlaced; start: byte of the
    first IDAT chunk.
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
    """IHDR and the bodies of the chunks that matter; image data is passed over, but must be there
    to its end.
    """
    file.seek(len(SIGNATURE))
    kind, length = read_chunk(file, uri)
    if kind != b"IHDR" or length != 13:
        raise Damaged(f"{uri}: the PNG does not begin with a header; fetch it again")
    width, height, depth, colour, _, _, interlaced = struct.unpack(
        ">IIBBBBB", checked_body(file, kind, length, uri)
    )
    if (
        not (0 < width < 2**31 and 0 < height < 2**31)
        or depth not in DEPTHS.get(colour, ())
        or interlaced > 1
    ):
        raise Damaged(
            f"{uri}: its PNG header is impossible ({width} x {height}, {depth} bits, colour type"
            f" {colour}); fetch it again"
        )
    start = 0
    found: dict[bytes, bytes] = {}
    while kind != b"IEND":
        at = file.tell()
        kind, length = read_chunk(file, uri)
        if kind == b"IDAT" and not start:
            start = at
        if kind in KEPT_CHUNKS and length < TEXT_LIMIT:
            found.setdefault(kind, checked_body(file, kind, length, uri))
        elif kind == b"iTXt" and length < TEXT_LIMIT:
            body = checked_body(file, kind, length, uri)
            if body.startswith(b"XML:com.adobe.xmp\0\0"):
                found[kind] = body
        else:
            file.seek(length + 4, 1)
    if not start:
        raise Damaged(f"{uri}: the PNG holds no image data; fetch it again")
    return Header(width, height, depth, colour, bool(interlaced), start), found


@cache
def unpacking(depth: int, spread: int) -> np.ndarray:
    """For each byte its samples of 1, 2 or 4 bits times `spread`, one byte each, seen as one number
    so that a lookup is one copy.
    """
    shifts = np.arange(8 - depth, -1, -depth, dtype=np.uint8)
    samples = (np.arange(256, dtype=np.uint8)[:, None] >> shifts) & np.uint8(2**depth - 1)
    return np.ascontiguousarray(samples * np.uint8(spread)).view(f"u{8 // depth}")[:, 0]


@dataclass(slots=True)
class PngPixels:
    """Pixels of a PNG, from top to bottom."""

    uri: str
    header: Header
    table: np.ndarray | None
    key: np.ndarray | None
    shape: tuple[int, int, int]
    dtype: np.dtype
    anywhere: bool = field(init=False, default=False)

    def finished(self, rows: np.ndarray, width: int) -> np.ndarray:
        """Unfiltered rows (y, bytes), uint8 -> (channels, y, width)."""
        head = self.header
        spread = 255 // (2**head.depth - 1) if head.depth < 8 and self.table is None else 1
        if head.depth == 16:
            block = rows.view(">u2").astype(np.uint16)
        elif head.depth < 8:
            unpacked = unpacking(head.depth, spread)
            block = unpacked[rows].view(np.uint8)[:, :width]
        else:
            block = rows
        block = block.reshape(len(rows), width, COLOURS[head.kind][1])
        if self.table is not None:
            block = arithmetic.from_palette(block, self.table)
        elif self.key is not None:
            opaque = np.any(block != self.key * spread, axis=-1, keepdims=True)
            block = np.concatenate(
                [block, opaque * block.dtype.type(np.iinfo(block.dtype).max)], axis=-1
            )
        return arithmetic.channels_first(block)

    def bands(self, data: Inflated, width: int, height: int) -> Iterator[tuple[int, np.ndarray]]:
        """(first row, (channels, rows, width)) of one picture of the stream."""
        length = self.header.row_bytes(width)
        pixel = self.header.pixel_bytes
        step = max(
            1, min(512, BAND_BYTES // max(1, length, width * self.shape[0] * self.dtype.itemsize))
        )
        before = bytes(length)
        for y in range(0, height, step):
            count = min(step, height - y)
            rows = unfiltered(data.take(count * (length + 1)), before, count, pixel)
            before = rows[-1].tobytes()
            yield y, self.finished(rows, width)

    def strips(self) -> Iterator[tuple[int, np.ndarray]]:
        """Rows from top to bottom; an interlaced picture is put together whole first."""
        with open(self.uri, "rb") as file:
            data = Inflated(file, self.header.start, self.uri)
            if not self.header.interlaced:
                yield from self.bands(data, self.header.width, self.header.height)
                return
            whole = np.empty(self.shape, self.dtype)
            for top, left, down, across in PASSES:
                part = whole[:, top::down, left::across]
                if part.size:
                    for y, band in self.bands(data, part.shape[2], part.shape[1]):
                        part[:, y : y + band.shape[1]] = band
            yield 0, whole

    def read(self, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        """Never called: `anywhere` is false."""
        raise NotImplementedError

    def close(self) -> None:
        """Nothing is held open between reads."""


def open_png(uri: str, selection: Selection, max_bytes: int | None) -> Source:
    """A PNG; of an animated one, its still picture."""
    with decoding(uri), open(uri, "rb") as file:
        header, found = read_header(file, uri)
        facts, notes, orientation = png_facts(found)
        colour, _ = COLOURS[header.kind]
        table, key = colour_table(header, found, uri)
        if key is not None or (table is not None and table.shape[1] == 4):
            colour = WITH_ALPHA[colour]
        if header.kind == 3:
            notes.append("its palette was expanded to RGB")
        channels = {"grey": 1, "greya": 2, "rgb": 3, "rgba": 4}[colour]
        dtype = np.dtype(np.uint16 if header.depth == 16 else np.uint8)
        shape = (channels, header.height, header.width)
        inner = PngPixels(uri, header, table, key, shape, dtype)
        pixels: Pixels = Turned(inner, orientation) if orientation > 1 else inner
        if orientation > 1:
            notes.append("it was set upright")
        if orientation >= 5:
            facts = facts.turned()
        # A band is held inflated, in the carrier, unfiltered and finished, each of them twice for a
        # moment.
        row = max(header.row_bytes(header.width), channels * header.width * dtype.itemsize)
        band = 8 * min(max(BAND_BYTES, row), row * header.height) + 2 * PIECE_BYTES
        whole = int(np.prod(shape)) * dtype.itemsize if header.interlaced else 0
        needed = band + whole + ingest_bytes(pixels.shape, dtype) + turned_bytes(inner, orientation)
        check_decode(uri, needed, max_bytes)
        alpha: Alpha | None = "straight" if colour in ("greya", "rgba") else None
    identify = partial(file_identity, uri, "PNG", selection)
    return Source(
        uri,
        pixels.shape,
        dtype,
        colour,
        alpha,
        None,
        False,
        needed,
        identify,
        facts,
        tuple(notes),
        pixels,
    )  # type: ignore[arg-type]


def colour_table(
    header: Header, found: dict[bytes, bytes], uri: str
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """(palette (entries, 3 or 4) of a palette picture, samples of the one colour that is
    transparent); None where there is none.
    """
    clear = found.get(b"tRNS")
    if header.kind == 3:
        listed = found.get(b"PLTE", b"")
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


def png_facts(found: dict[bytes, bytes]) -> tuple[PhotoMetadata, list[str], int]:
    """Facts, notes and EXIF orientation from the chunks of a PNG."""
    notes: list[str] = []
    exif, orientation = None, 1
    if b"eXIf" in found:
        try:
            exif, orientation = clean_exif(exif_of(found[b"eXIf"]))
        except Exception:  # a broken EXIF block costs the EXIF, not the picture
            notes.append("its EXIF block is damaged and was left out")
    icc = None
    if b"iCCP" in found:
        _, _, packed = found[b"iCCP"].partition(b"\0")
        try:
            icc = zlib.decompressobj().decompress(packed[1:], TEXT_LIMIT)
        except zlib.error:
            notes.append("its ICC profile is damaged and was left out")
    resolution = None
    if len(found.get(b"pHYs", b"")) == 9:
        x, y, unit = struct.unpack(">IIB", found[b"pHYs"])
        resolution = (x / 100, y / 100) if unit == 1 and x and y else None
    if b"acTL" in found and len(found[b"acTL"]) == 8:
        notes.append(
            "took the still picture of an animation of"
            f" {struct.unpack('>I', found[b'acTL'][:4])[0]} frames"
        )
    xmp = found.get(b"iTXt")
    # keyword, two flag bytes, language, translated keyword; a compressed packet is left behind
    packet = xmp.split(b"\0", 5)[-1] if xmp and xmp[18:20] == b"\0\0" else None
    facts = PhotoMetadata(
        icc=icc, exif=exif, xmp=upright_xmp(packet), resolution=resolution, resolution_unit="centimetre" if resolution else None
    )  # fmt: skip
    return facts, notes, orientation
