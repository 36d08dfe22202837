"""Directories of a TIFF as they stand in files and in EXIF blocks: tags with type, count and bytes.

Values are kept as they are, so that text in any encoding and numbers of odd types come out as they
went in. Layout: TIFF 6.0, section 2; BigTIFF has wider counts and offsets.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Layout:
    """Where directories lie.

    read: bytes (offset, length) of a file or a block; fewer where it ends. order: "<" or ">". big:
    whether it is a BigTIFF.
    """

    read: Callable[[int, int], bytes]
    order: str
    big: bool = False


# Types by number: bytes of a value, and of the numbers that it is made of.
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
SIZES |= {16: 8, 17: 8, 18: 8, 129: 1}
PARTS = SIZES | {5: 4, 10: 4}
# Codes of `struct` for them.
CODES = {1: "B", 3: "H", 4: "I", 5: "I", 6: "b", 8: "h", 9: "i", 10: "i", 11: "f", 12: "d"}
CODES |= {13: "I", 16: "Q", 17: "q", 18: "Q"}
ASCII, SHORT, LONG, RATIONAL, SIGNED_RATIONAL, UTF8 = 2, 3, 4, 5, 10, 129
# Values that are larger belong to no description of a picture.
VALUE_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Entry:
    """The value of a tag. kind: its type in TIFF. data: `count` values, little-endian."""

    kind: int
    count: int
    data: bytes

    @property
    def text(self) -> str:
        """The text of a tag, of UTF-8 or else Latin-1, up to its first zero."""
        stored = self.data.partition(b"\0")[0]
        try:
            return stored.decode()
        except UnicodeDecodeError:
            return stored.decode("latin-1")

    @property
    def numbers(self) -> tuple[float, ...]:
        """The numbers of a tag; a fraction by zero is 0, and text has none."""
        code = CODES.get(self.kind)
        if code is None:
            return ()
        values = struct.unpack(f"<{len(self.data) // struct.calcsize(code)}{code}", self.data)
        if self.kind not in (RATIONAL, SIGNED_RATIONAL):
            return values
        pairs = zip(values[::2], values[1::2], strict=True)
        return tuple(up / down if down else 0.0 for up, down in pairs)


def read_directory(
    layout: Layout, offset: int, wanted: Collection[int] | None = None
) -> tuple[dict[int, Entry], set[int]]:
    """The entries of the directory at byte `offset`, and the tags whose values cannot be read.

    wanted: the tags that are looked at; None: all. ValueError: there is no directory.
    """
    read, order = layout.read, layout.order
    head, wide = ("Q", "Q") if layout.big else ("H", "I")
    size = 20 if layout.big else 12
    start = struct.calcsize(head)
    stated = read(offset, start)
    if offset <= 0 or len(stated) < start:
        raise ValueError(f"there is no directory at byte {offset}")
    count = struct.unpack(order + head, stated)[0]
    listed = read(offset + start, size * min(count, 4096))
    entries: dict[int, Entry] = {}
    lost: set[int] = set()
    for at in range(0, len(listed) - size + 1, size):
        tag, kind, number = struct.unpack_from(f"{order}HH{wide}", listed, at)
        if wanted is not None and tag not in wanted:
            continue
        length = SIZES.get(kind, 0) * number
        data = listed[at + size - struct.calcsize(wide) : at + size][:length]
        if length > len(data) and length <= VALUE_BYTES:
            data = read(struct.unpack_from(order + wide, data)[0], length)
        if not length or len(data) < length:
            lost.add(tag)
            continue
        entries.setdefault(tag, Entry(kind, number, _swapped(data, kind, order)))
    return entries, lost


def _swapped(data: bytes, kind: int, order: str) -> bytes:
    """Values of a type as little-endian bytes."""
    part = PARTS[kind]
    if order == "<" or part == 1:
        return data
    return b"".join(data[at : at + part][::-1] for at in range(0, len(data), part))


def directory_bytes(entries: Mapping[int, Entry], start: int, big: bool = False) -> bytes:
    """A little-endian directory, with its values behind it, as it lies at byte `start`."""
    head, wide, inline = ("<Q", "<Q", 8) if big else ("<H", "<I", 4)
    values = b""
    listed = struct.pack(head, len(entries))
    behind = start + len(listed) + len(entries) * (20 if big else 12) + inline
    for tag, entry in sorted(entries.items()):
        data = entry.data.ljust(inline, b"\0")
        if len(data) > inline:
            data = struct.pack(wide, behind + len(values))
            values += entry.data + b"\0" * (-len(entry.data) % inline)
        listed += struct.pack("<HH", tag, entry.kind) + struct.pack(wide, entry.count) + data
    return listed + bytes(inline) + values
