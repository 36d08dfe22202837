"""PNG read row by row in bounded memory (interlaced PNG whole)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, partial

import numpy as np

from tierscale.pipeline.formats import samples as arithmetic
from tierscale.pipeline.formats.decoding import check_decode, decoding
from tierscale.pipeline.formats.fingerprint import file_identity
from tierscale.pipeline.formats.orientation import UprightPixels, upright_bytes
from tierscale.pipeline.formats.png.header import (
    COLOURS,
    Chunks,
    Header,
    colour_table,
    read_header,
)
from tierscale.pipeline.formats.png.metadata import png_metadata
from tierscale.pipeline.formats.png.stream import PIECE_BYTES, Inflated, unfiltered
from tierscale.pipeline.formats.source import (
    CHANNELS,
    Colour,
    Pixels,
    Samples,
    Source,
    ingest_bytes,
)
from tierscale.pipeline.plan.options import Selection

BAND_BYTES = 8 << 20
WITH_ALPHA: dict[Colour, Colour] = {"grey": "greya", "rgb": "rgba"}
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


@cache
def unpacking(depth: int, spread: int) -> np.ndarray:
    """For each byte its samples of 1, 2 or 4 bits times `spread`, one byte each: (256,).

    The samples of a byte are seen as one number, so that a lookup is one copy.
    """
    shifts = np.arange(8 - depth, -1, -depth, dtype=np.uint8)
    samples = (np.arange(256, dtype=np.uint8)[:, None] >> shifts) & np.uint8(2**depth - 1)
    return np.ascontiguousarray(samples * np.uint8(spread)).view(f"u{8 // depth}")[:, 0]


@dataclass(slots=True)
class PngPixels:
    """Pixels of a PNG, from top to bottom; table, key: see `colour_table`."""

    uri: str
    header: Header
    table: np.ndarray | None
    key: np.ndarray | None
    colour: Colour
    shape: tuple[int, int, int] = field(init=False)
    dtype: np.dtype = field(init=False)
    random_access: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self.shape = (CHANNELS[self.colour], self.header.height, self.header.width)
        self.dtype = np.dtype(np.uint16 if self.header.depth == 16 else np.uint8)

    def convert(self, rows: np.ndarray, width: int) -> np.ndarray:
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
            yield y, self.convert(rows, width)

    def strips(self) -> Iterator[tuple[int, np.ndarray]]:
        """Rows from top to bottom; an interlaced picture is put together whole first."""
        with open(self.uri, "rb") as file:
            data = Inflated(file, self.header.start, self.uri)
            if not self.header.interlaced:
                yield from self.bands(data, self.header.width, self.header.height)
                return
            yield 0, self.interlaced(data)

    def interlaced(self, data: Inflated) -> np.ndarray:
        """The whole picture (channels, y, x), put together from its seven passes."""
        whole = np.empty(self.shape, self.dtype)
        for top, left, down, across in PASSES:
            part = whole[:, top::down, left::across]
            if part.size:
                for y, band in self.bands(data, part.shape[2], part.shape[1]):
                    part[:, y : y + band.shape[1]] = band
        return whole

    def read(self, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        """Never called: `random_access` is false."""
        raise NotImplementedError

    def close(self) -> None:
        """Nothing is held open between reads."""


def open_png(uri: str, selection: Selection, max_bytes: int | None) -> Source:
    """A PNG; of an animated one, its still picture. Raises what open_image does."""
    with decoding(uri), open(uri, "rb") as file:
        header, chunks = read_header(file, uri)
        metadata, notes, orientation = png_metadata(chunks, header.kind in (0, 4), uri)
        inner = png_pixels(uri, header, chunks)
        needed = decode_bytes(inner, orientation)
        check_decode(uri, needed, max_bytes)
    if header.kind == 3:
        notes.append("its palette was expanded to RGB")
    pixels: Pixels = UprightPixels(inner, orientation) if orientation > 1 else inner
    if orientation > 1:
        notes.append("it was set upright")
    return Source(
        uri=uri,
        pixels=pixels,
        samples=Samples(inner.colour, "straight" if inner.colour in ("greya", "rgba") else None),
        metadata=metadata.transposed() if orientation >= 5 else metadata,
        random_access=False,
        decode_bytes=needed,
        notes=tuple(notes),
        identify=partial(file_identity, uri, "PNG", selection),
    )


def png_pixels(uri: str, header: Header, chunks: Chunks) -> PngPixels:
    """The reader of a PNG's pixels. Damaged: it lacks its palette."""
    colour, _ = COLOURS[header.kind]
    table, key = colour_table(header, chunks, uri)
    if key is not None or (table is not None and table.shape[1] == 4):
        colour = WITH_ALPHA[colour]
    return PngPixels(uri, header, table, key, colour)


def decode_bytes(pixels: PngPixels, orientation: int) -> int:
    """Memory beside the window that reading or ingesting takes, in bytes."""
    header = pixels.header
    channels, height, width = pixels.shape
    itemsize = pixels.dtype.itemsize
    # A band is held inflated, in the carrier, unfiltered and converted, each of them twice for a
    # moment.
    row = max(header.row_bytes(width), channels * width * itemsize)
    band = 8 * min(max(BAND_BYTES, row), row * height) + 2 * PIECE_BYTES
    whole = int(np.prod(pixels.shape)) * itemsize if header.interlaced else 0
    swapped = (channels, width, height) if orientation >= 5 else pixels.shape
    ingesting = ingest_bytes(swapped, pixels.dtype)
    return band + whole + ingesting + upright_bytes(pixels, orientation)
