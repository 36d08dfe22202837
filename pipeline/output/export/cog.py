"""A TIFF laid out anew for reading over a network: a Cloud Optimized GeoTIFF.

Source: OGC 21-026, "OGC Cloud Optimized GeoTIFF Standard": all directories lie before the pixels,
and smaller levels before larger ones, so that few requests tell all that is there.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO

import numpy as np
import tifffile

from tierscale.pipeline.formats.blocks.directories import SIZES

# How offsets and byte counts of tiles are read, by their type.
WHOLE = {3: "<u2", 4: "<u4", 16: "<u8"}
TILE_OFFSETS, TILE_BYTES = 324, 325
# Bytes that are copied at a time.
PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Form:
    """Sizes of parts of a TIFF: of its header, an entry, the count of entries, a pointer."""

    header: int
    entry: int
    count: str
    pointer: str

    @property
    def inline(self) -> int:
        """Bytes of a value that fits into its entry."""
        return struct.calcsize(self.pointer)


CLASSIC, BIG = Form(8, 12, "<H", "<I"), Form(16, 20, "<Q", "<Q")


@dataclass(slots=True)
class Directory:
    """The directory of a page: type, number of elements and bytes of each tag."""

    tags: dict[int, tuple[int, int, bytes]]
    form: Form

    @property
    def size(self) -> int:
        """What it takes, with the values that do not fit into its entries."""
        form = self.form
        own = struct.calcsize(form.count) + form.entry * len(self.tags) + form.inline
        return own + sum(self._outside(value) for _, _, value in self.tags.values())

    def _outside(self, value: bytes) -> int:
        """Bytes that a value takes behind the entries; each begins at a multiple of 8."""
        return 0 if len(value) <= self.form.inline else len(value) + -len(value) % 8 + 8

    def numbers(self, tag: int) -> np.ndarray:
        """The elements of a tag that are whole numbers."""
        kind, _, value = self.tags[tag]
        return np.frombuffer(value, WHOLE[kind]).astype(np.int64)

    def replace(self, tag: int, numbers: np.ndarray) -> None:
        """Other numbers for a tag, of the same type."""
        kind, count, _ = self.tags[tag]
        self.tags[tag] = kind, count, numbers.astype(WHOLE[kind]).tobytes()

    def packed(self, start: int, following: int) -> bytes:
        """The directory as it lies at byte `start`; following: where the next one lies, or 0."""
        form = self.form
        own = struct.calcsize(form.count) + form.entry * len(self.tags) + form.inline
        head, values = struct.pack(form.count, len(self.tags)), b""
        for tag, (kind, count, value) in sorted(self.tags.items()):
            head += struct.pack("<HH", tag, kind) + struct.pack(form.pointer, count)
            if len(value) <= form.inline:
                head += value.ljust(form.inline, b"\0")
                continue
            values += bytes(-(start + own + len(values)) % 8)
            head += struct.pack(form.pointer, start + own + len(values))
            values += value
        packed = head + struct.pack(form.pointer, following) + values
        return packed.ljust(self.size, b"\0")


def lay_out(source: str, target: str) -> None:
    """Write the little-endian TIFF `source`, a chain of tiled pages, as a COG to `target`.

    It is copied tile by tile. The tiles of the last page come first.
    """
    with tifffile.TiffFile(source) as tif:
        form = BIG if tif.is_bigtiff else CLASSIC
        offsets = [page.offset for page in tif.pages]
    with open(source, "rb") as old, open(target, "wb") as new:
        pages = [read_directory(old, offset, form) for offset in offsets]
        sizes = (page.size + -page.size % 8 for page in pages)
        starts = list(itertools.accumulate(sizes, initial=form.header))
        moved: Mapping[int, np.ndarray] = place_tiles(pages, starts[-1])
        taken = [page.numbers(TILE_OFFSETS) for page in pages]
        new.write(b"II" + (struct.pack("<HHHQ", 43, 8, 0, 16) if form is BIG else b"*\0\x08\0\0\0"))
        for number, page in enumerate(pages):
            page.replace(TILE_OFFSETS, moved[number])
            following = starts[number + 1] if number + 1 < len(pages) else 0
            new.write(page.packed(starts[number], following))
            new.write(bytes(starts[number + 1] - new.tell()))
        for number, page in reversed(list(enumerate(pages))):
            for offset, count in zip(taken[number], page.numbers(TILE_BYTES), strict=True):
                copy(old, new, int(offset), int(count))


def read_directory(file: IO[bytes], offset: int, form: Form) -> Directory:
    """The directory at byte `offset`, with all its values."""
    file.seek(offset)
    (count,) = struct.unpack(form.count, file.read(struct.calcsize(form.count)))
    entries = file.read(count * form.entry)
    tags = {}
    for at in range(0, len(entries), form.entry):
        tag, kind = struct.unpack_from("<HH", entries, at)
        (elements,) = struct.unpack_from(form.pointer, entries, at + 4)
        length, value = elements * SIZES[kind], entries[at + form.entry - form.inline :]
        if length > form.inline:
            file.seek(struct.unpack_from(form.pointer, value)[0])
            value = file.read(length)
        tags[tag] = kind, elements, value[:length]
    return Directory(tags, form)


def place_tiles(pages: list[Directory], start: int) -> dict[int, np.ndarray]:
    """Where the tiles of each page lie, from byte `start` on; those of the last page first."""
    placed = {}
    for number, page in reversed(list(enumerate(pages))):
        ends = start + np.cumsum(page.numbers(TILE_BYTES))
        placed[number] = np.concatenate([[start], ends[:-1]])
        start = int(ends[-1])
    return placed


def copy(old: IO[bytes], new: IO[bytes], offset: int, count: int) -> None:
    """Append `count` bytes at `offset` of a file to another one."""
    old.seek(offset)
    while count:
        piece = old.read(min(PIECE, count))
        if not piece:
            raise EOFError(f"{old.name} ends within a tile at byte {offset}")
        new.write(piece)
        count -= len(piece)
