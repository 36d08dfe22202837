"""What a GIF announces before Pillow allocates it: the canvas that holds its frames."""

from __future__ import annotations

import os
import struct
from typing import BinaryIO


def gif_canvas(file: BinaryIO, frame: int) -> tuple[int, int]:
    """Width and height that hold the screen of a GIF and its frames up to number `frame`.

    GIF89a, sections 18 to 24; as far as the file goes. ValueError: an extension is empty, behind
    which Pillow would continue elsewhere than this function.
    """
    file.seek(6)
    width, height, flags = struct.unpack("<2HB", file.read(5).ljust(5, b"\0"))
    file.seek(13)
    _skip_colours(file, flags)
    left = frame + 1
    while left and (mark := file.read(1)) not in (b"", b";"):
        if mark == b"!":
            _skip_extension(file)
        elif mark == b",":
            x, y, wide, high, flags = struct.unpack("<4HB", file.read(9).ljust(9, b"\0"))
            width, height, left = max(width, x + wide), max(height, y + high), left - 1
            _skip_colours(file, flags)
            file.read(1)  # the size of its codes
            _skip_blocks(file)
    return width, height


def _skip_colours(file: BinaryIO, flags: int) -> None:
    """Pass over a table of colours, which is there if the flags say so."""
    if flags & 128:
        file.seek(3 << (flags & 7) + 1, os.SEEK_CUR)


def _block(file: BinaryIO) -> bytes:
    """The next block of data; empty at the end of a run of blocks."""
    size = file.read(1)
    return file.read(size[0]) if size else b""


def _skip_blocks(file: BinaryIO) -> None:
    while _block(file):
        pass


def _skip_extension(file: BinaryIO) -> None:
    comment = file.read(1) == b"\xfe"
    first = _block(file)
    second = _block(file) if first else b""
    if not (first or comment) or (first.startswith(b"NETSCAPE2.0") and not second):
        raise ValueError("an extension of the GIF is empty; save it again, as PNG")
    if second:
        _skip_blocks(file)
