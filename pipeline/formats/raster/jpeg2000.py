"""JPEG 2000 files and codestreams, whose stated lengths are checked before OpenJPEG decodes."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO

import imagecodecs
import numpy as np

from tierscale.pipeline.errors import Damaged, Refused
from tierscale.pipeline.formats import samples as arithmetic
from tierscale.pipeline.formats.decoding import check_decode, decoding
from tierscale.pipeline.formats.fingerprint import file_identity
from tierscale.pipeline.formats.metadata import PhotoMetadata
from tierscale.pipeline.formats.raster.whole import WholePixels
from tierscale.pipeline.formats.source import Colour, Samples, Source, ingest_bytes
from tierscale.pipeline.plan.options import Selection

# Markers: start and size of a codestream, start of a tile-part, end of the codestream.
SOC, SIZ, SOT, EOC = b"\xff\x4f", b"\xff\x51", b"\xff\x90", b"\xff\xd9"
BOXES_MARK = b"\0\0\0\x0cjP  "
# Boxes that hold other boxes.
PARENTS = (b"jp2h",)
COLOURS: tuple[Colour, ...] = ("grey", "greya", "rgb", "rgba")
# SOT, its length (always 10), tile, length of the tile-part, its number, number of tile-parts.
TILE_PART = struct.Struct(">2sHHIBB")


@dataclass(frozen=True, slots=True)
class Header:
    """What the SIZ segment of a codestream states. shape: (components, y, x). bits: of a sample."""

    shape: tuple[int, int, int]
    bits: int

    @property
    def dtype(self) -> np.dtype:
        """Type of the decoded samples."""
        return np.dtype(np.uint8 if self.bits <= 8 else np.uint16)


def open_jpeg2000(uri: str, selection: Selection, max_bytes: int | None) -> Source:
    """A JPEG 2000 file or codestream of 1 to 4 components of one size, of up to 16 bits.

    Raises what open_image does.
    """
    with decoding(uri):
        with open(uri, "rb") as file:
            start, stop = codestream(file, uri)
            header = read_header(file, start, uri)
            check_lengths(file, start, stop, uri)
        # OpenJPEG decodes into 32-bit integers, which are then copied.
        held = (8 + 2 * header.dtype.itemsize) * int(np.prod(header.shape))
        needed = held + ingest_bytes(header.shape, header.dtype)
        check_decode(uri, needed, max_bytes)
    components = header.shape[0]
    return Source(
        uri=uri,
        pixels=WholePixels(header.shape, header.dtype, partial(decode, uri)),
        samples=Samples(
            COLOURS[components - 1],
            "straight" if components in (2, 4) else None,
            header.bits if header.bits not in (8, 16) else None,
        ),
        metadata=PhotoMetadata(),
        random_access=False,
        decode_bytes=needed,
        notes=(),
        identify=partial(file_identity, uri, "JPEG2000", selection),
    )


def codestream(file: BinaryIO, uri: str) -> tuple[int, int]:
    """First and last byte (exclusive) of the codestream: the whole file, or the box that holds it.

    Damaged: there is none, or a box ends beyond what it lies in.
    """
    length = os.fstat(file.fileno()).st_size
    file.seek(0)
    if file.read(8) != BOXES_MARK:
        return 0, length
    for kind, start, stop in boxes(file, 0, length, uri):
        if kind == b"jp2c":
            return start, stop
    raise Damaged(f"{uri}: the JPEG 2000 file holds no image; fetch it again")


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


def read_header(file: BinaryIO, start: int, uri: str) -> Header:
    """The header of the codestream at byte `start` (ISO/IEC 15444-1, A.5.1).

    Damaged: it is incomplete or impossible. Refused: it has other than 1 to 4 equal components.
    """
    file.seek(start)
    head = file.read(54)
    count = int.from_bytes(head[40:42], "big")
    if not head.startswith(SOC + SIZ) or len(head) < 42 + 3 * min(count, 4):
        raise Damaged(f"{uri}: the JPEG 2000 file has no image header; fetch it again")
    right, bottom, left, top = struct.unpack_from(">4I", head, 8)
    depths = {head[42 + 3 * i] for i in range(min(count, 4))}
    if count not in (1, 2, 3, 4) or len(depths) != 1 or max(depths) > 15:
        raise Refused(
            f"{uri}: JPEG 2000 of {count} components of depths {sorted(depths)} is not supported;"
            " convert it to TIFF"
        )
    shape = (count, bottom - top, right - left)
    if not 0 < shape[1] < 2**31 or not 0 < shape[2] < 2**31:
        raise Damaged(f"{uri}: it announces {shape[2]} x {shape[1]} pixels; fetch it again")
    return Header(shape, max(depths) + 1)


def check_lengths(file: BinaryIO, start: int, stop: int, uri: str) -> None:
    """Damaged: a segment or a tile-part of the codestream in [start, stop) ends beyond it.

    OpenJPEG decodes what is there and makes up the rest (ISO/IEC 15444-1, A.3 and A.4.2).
    """
    at = start + len(SOC)
    while True:
        file.seek(at)
        head = file.read(TILE_PART.size)[: stop - at]
        mark = head[:2]
        if mark == EOC or (at == stop and at > start + len(SOC)):
            return
        if mark == SOT and len(head) == TILE_PART.size:
            length = TILE_PART.unpack(head)[3] or stop - at
            shortest, what = TILE_PART.size, "tile-part"
        elif len(head) >= 4 and mark[0] == 0xFF:
            length, shortest, what = 2 + int.from_bytes(head[2:4], "big"), 4, "segment"
        else:
            raise Damaged(
                f"{uri}: there is no marker at byte {at} of its codestream; the file is damaged or"
                " cut short, fetch it again"
            )
        if length < shortest or at + length > stop:
            raise Damaged(
                f"{uri}: a {what} at byte {at} states {length} bytes, of {stop - at} that are"
                " there; the file is damaged or cut short, fetch it again"
            )
        at += length


def decode(uri: str) -> np.ndarray:
    """The picture as (channels, y, x). OpenJPEG is strict here: what is cut off is an error."""
    with open(uri, "rb") as file:
        block = imagecodecs.jpeg2k_decode(file.read())
    return arithmetic.channels_first(block) if block.ndim == 3 else block[None]
