"""The bytes of a PNG: chunks, the compressed stream, and undoing the filters of rows."""

from __future__ import annotations

import struct
import zlib
from typing import IO

import imagecodecs
import numpy as np

from tierscale.pipeline.errors import Damaged

SIGNATURE = b"\x89PNG\r\n\x1a\n"
PIECE_BYTES = 1 << 20
# PNG colour type whose 8-bit (from 6 bytes: 16-bit) pixels are as many bytes wide.
CARRIERS = {1: (0, 8), 2: (4, 8), 3: (2, 8), 4: (6, 8), 6: (2, 16), 8: (6, 16)}


def read_chunk(file: IO[bytes], uri: str) -> tuple[bytes, int]:
    """(type, length) of the chunk that begins here. Damaged: the file ends."""
    head = file.read(8)
    if len(head) < 8:
        raise Damaged(f"{uri}: the PNG ends without its end chunk; it is cut short, fetch it again")
    return head[4:], struct.unpack(">I", head[:4])[0]


def checked_body(file: IO[bytes], kind: bytes, length: int, uri: str) -> bytes:
    """Body of a chunk. Damaged: the file ends inside it, or its checksum is wrong."""
    body, check = file.read(length), file.read(4)
    if len(check) < 4:
        raise Damaged(
            f"{uri}: the PNG ends inside its {kind.decode('latin-1')} chunk; it is cut short, fetch"
            " it again"
        )
    if struct.unpack(">I", check)[0] != zlib.crc32(body, zlib.crc32(kind)):
        raise Damaged(
            f"{uri}: the checksum of its {kind.decode('latin-1')} chunk before byte {file.tell()}"
            " is wrong; fetch it again"
        )
    return body


class Inflated:
    """The decompressed bytes of the IDAT chunks, read from front to back in bounded memory.

    The checksum of each chunk is verified.
    """

    def __init__(self, file: IO[bytes], start: int, uri: str) -> None:
        self.file, self.uri = file, uri
        self.engine = zlib.decompressobj()
        self.waiting = b""
        self.left, self.check = 0, 0
        file.seek(start)

    def refill(self) -> bool:
        """Read the next piece of image data; False: there is no more. Damaged: what `take` says."""
        while not self.left:
            kind, self.left = read_chunk(self.file, self.uri)
            self.check = zlib.crc32(kind)
            if kind != b"IDAT":
                return False
            if not self.left:
                self.close_chunk()
        self.waiting = self.file.read(min(self.left, PIECE_BYTES))
        if not self.waiting:
            raise Damaged(
                f"{self.uri}: the PNG ends inside its image data; it is cut short, fetch it again"
            )
        self.check = zlib.crc32(self.waiting, self.check)
        self.left -= len(self.waiting)
        if not self.left:
            self.close_chunk()
        return True

    def close_chunk(self) -> None:
        """Compare the checksum that follows a chunk."""
        if self.file.read(4) != struct.pack(">I", self.check):
            raise Damaged(
                f"{self.uri}: the checksum of the image data before byte {self.file.tell()} is"
                " wrong; fetch it again"
            )

    def take(self, count: int) -> bytes:
        """The next `count` bytes. Damaged: the data ends before, or a checksum is wrong."""
        parts: list[bytes] = []
        while count:
            if self.engine.eof or (not self.waiting and not self.refill()):
                raise Damaged(
                    f"{self.uri}: the PNG's image data ends {count} bytes early; it is cut short,"
                    " fetch it again"
                )
            part = self.engine.decompress(self.waiting, count)
            self.waiting = self.engine.unconsumed_tail
            parts.append(part)
            count -= len(part)
        return b"".join(parts)


def unfiltered(rows: bytes, before: bytes, count: int, pixel_bytes: int) -> np.ndarray:
    """PNG rows with their filters undone: (count, row bytes), uint8.

    rows: filtered, each with its filter byte. before: the unfiltered row above them (zeros at the
    top). libpng does the work: the rows travel in a small PNG whose pixels are as many bytes wide,
    below an unfiltered copy of `before`.
    """
    kind, depth = CARRIERS[pixel_bytes]
    width = len(before) // pixel_bytes
    data = zlib.compress(b"\0" + before + rows, 0)
    header = struct.pack(">IIBBBBB", width, count + 1, depth, kind, 0, 0, 0)
    carrier = SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    pixels = imagecodecs.png_decode(carrier)
    if pixels.dtype == np.uint16:
        pixels = pixels.astype(">u2")
    return np.ascontiguousarray(pixels).reshape(count + 1, -1).view(np.uint8)[1:]


def chunk(kind: bytes, body: bytes) -> bytes:
    """A PNG chunk with length and checksum."""
    return (
        struct.pack(">I", len(body))
        + kind
        + body
        + struct.pack(">I", zlib.crc32(body, zlib.crc32(kind)))
    )
