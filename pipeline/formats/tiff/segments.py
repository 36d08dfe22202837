"""Pixels in compressed tiles or strips of a TIFF, decoded one by one and cached."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import imagecodecs
import numpy as np

from tierscale.pipeline.errors import Damaged, one_line
from tierscale.pipeline.formats.source import STRIP_ROWS, window_strips
from tierscale.pipeline.formats.uncompressed import Conversion

CACHE_BYTES = 8 << 20
JPEG = 7
# Start of frame: SOF0 to SOF15 without the tables and extensions among them.
FRAME_MARKS = (0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)


@dataclass(slots=True, kw_only=True)
class Segments:
    """Pixels in compressed tiles or strips.

    uri, handle: the file and its descriptor, which `close` closes.
    planes: pages whose samples are put side by side.
    shape: (channels, y, x).
    fill: of segments that were never written, a value for each sample of a page.
    grid: tiles down and across (strips: one across). size: of a segment, (y, x).
    separate: planes of single samples inside a page (1 where samples lie together).
    cache: decoded segments by (plane, number), `cached` bytes together, at most kept_bytes.
    """

    uri: str
    handle: int
    planes: tuple[Any, ...]
    convert: Conversion
    shape: tuple[int, int, int]
    fill: tuple[float, ...]
    grid: tuple[int, int] = field(init=False)
    size: tuple[int, int] = field(init=False)
    separate: int = field(init=False)
    together: int = field(init=False)
    cache: OrderedDict[tuple[int, int], np.ndarray] = field(init=False, default_factory=OrderedDict)
    cached: int = field(init=False, default=0)
    lock: threading.Lock = field(init=False, default_factory=threading.Lock)
    dtype: np.dtype = field(init=False)
    random_access: bool = field(init=False, default=True)

    def __post_init__(self) -> None:
        self.dtype = self.convert.dtype
        page = self.planes[0].keyframe
        self.size = (
            (page.tilelength, page.tilewidth)
            if page.is_tiled
            else (page.rowsperstrip, page.imagewidth)
        )
        self.grid = (-(-page.imagelength // self.size[0]), -(-page.imagewidth // self.size[1]))
        self.separate = page.samplesperpixel if page.planarconfig == 2 else 1
        self.together = page.samplesperpixel // self.separate

    @property
    def segment_bytes(self) -> int:
        """Decoded bytes of one segment."""
        samples = self.size[0] * self.size[1] * self.together
        return samples * np.dtype(self.planes[0].keyframe.dtype).itemsize

    @property
    def strip_rows(self) -> int:
        """Rows of a strip that `strips` gives."""
        if self.grid == (1, 1):
            return STRIP_ROWS
        return max(1, STRIP_ROWS // self.size[0]) * self.size[0]

    @property
    def kept_bytes(self) -> int:
        """Decoded bytes that are kept: CACHE_BYTES, or all that one place in the grid takes."""
        return max(CACHE_BYTES, len(self.planes) * self.separate * self.segment_bytes)

    def decoded(self, plane: int, number: int) -> np.ndarray:
        """Segment `number` of a page as (y, x, samples); strips at the bottom are shorter."""
        with self.lock:
            if (plane, number) in self.cache:
                self.cache.move_to_end((plane, number))
                return self.cache[plane, number]
        block = self.decode(plane, number)
        with self.lock:
            if (plane, number) not in self.cache:
                self.cache[plane, number] = block
                self.cached += block.nbytes
            while len(self.cache) > 1 and self.cached > self.kept_bytes:
                self.cached -= self.cache.popitem(last=False)[1].nbytes
        return block

    def decode(self, plane: int, number: int) -> np.ndarray:
        """Segment `number` of a page, read and decoded. Damaged: it cannot be; names its place."""
        page = self.planes[plane]
        key, offset, count = page.keyframe, page.dataoffsets[number], page.databytecounts[number]
        row, column = divmod(number % (self.grid[0] * self.grid[1]), self.grid[1])
        place = f"tile {number} (row {row}, column {column})" if key.is_tiled else f"strip {number}"
        if count == 0:
            if offset:
                raise Damaged(f"{self.uri}: {place} is empty; the file is damaged, fetch it again")
            first = number // (self.grid[0] * self.grid[1]) * self.together
            block = np.empty((*self.size, self.together), key.dtype)
            block[:] = self.fill[first : first + self.together]
            return block
        data = os.pread(self.handle, count, offset)
        try:
            if len(data) < count:
                raise ValueError(f"{len(data)} of {count} bytes are there")
            block = self.decompressed(page, number, data)
        except Exception as error:  # decoders of a dozen codecs raise what they like
            why = (
                f"{self.uri}: {place} cannot be decoded ({one_line(error)}); the file is damaged,"
                " fetch it again"
            )
            raise Damaged(why) from error
        # CCITT decoders give numbers for bits.
        return block.astype(key.dtype, copy=False)

    def decompressed(self, page: Any, number: int, data: bytes) -> np.ndarray:
        """The samples of segment `number`, (y, x, samples); raises what decoders raise."""
        key = page.keyframe
        if key.compression == JPEG:
            check_jpeg(data, 4 * self.size[0] * self.size[1] + 4096)
            if self.separate > 1:  # each segment is a grey picture, which tifffile does not know
                grey = imagecodecs.jpeg_decode(
                    data, tables=page.jpegtables, colorspace=1, outcolorspace=1
                )
                return grey[..., None]
        tables = (
            {"jpegtables": page.jpegtables, "jpegheader": key.jpegheader}
            if key.compression in (6, 7, 34892, 33007)
            else {}
        )
        block, _, _ = key.decode(data, number, _fullsize=key.is_tiled, **tables)
        return block[0]

    def read(self, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        """A window; only the segments that it touches are decoded, each converted by itself."""
        high, wide = self.size
        out = np.empty((self.shape[0], y1 - y0, x1 - x0), self.dtype)
        for row in range(y0 // high, -(-y1 // high)):
            for column in range(x0 // wide, -(-x1 // wide)):
                top, left = row * high, column * wide
                ys, xs = (max(y0, top), min(y1, top + high)), (max(x0, left), min(x1, left + wide))
                part = self.samples(row, column)[
                    ys[0] - top : ys[1] - top, xs[0] - left : xs[1] - left
                ]
                out[:, ys[0] - y0 : ys[1] - y0, xs[0] - x0 : xs[1] - x0] = self.convert(part)
        return out

    def samples(self, row: int, column: int) -> np.ndarray:
        """All samples of a place in the grid side by side: (y, x, samples), of several segments."""
        groups = [divmod(group, self.separate) for group in range(len(self.planes) * self.separate)]
        blocks = [
            self.decoded(plane, (sample * self.grid[0] + row) * self.grid[1] + column)
            for plane, sample in groups
        ]
        return blocks[0] if len(blocks) == 1 else np.concatenate(blocks, axis=-1)

    def strips(self) -> Iterator[tuple[int, np.ndarray]]:
        """Whole rows of segments, so that each segment is decoded once; a single strip in parts."""
        yield from window_strips(self, self.strip_rows)

    def close(self) -> None:
        """Close the file."""
        self.cache.clear()
        self.cached = 0
        if self.handle >= 0:
            os.close(self.handle)
            self.handle = -1


def check_jpeg(data: bytes, limit: int) -> None:
    """Refuse JPEG data of a tile that is cut, or larger than the tile's `limit` in pixels.

    libjpeg would make up grey for what is lost, and take memory for whatever size the data claims.
    """
    if b"\xff\xd9" not in data[-64:]:
        raise ValueError("its JPEG data has no end mark")
    at = 2
    while at + 9 < len(data) and data[at] == 0xFF:
        mark, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if mark in FRAME_MARKS:
            height, width = (int.from_bytes(data[at + i : at + i + 2], "big") for i in (5, 7))
            if height * width > limit:
                raise ValueError(f"its JPEG data claims {width} x {height} pixels")
            return
        at += 1 if mark == 0xFF else 2 + length
