"""JPEG 2000 files and codestreams, whose stated lengths are checked before OpenJPEG decodes."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO

import imagecodecs
import numpy as np

from tierscale.pipeline.errors import Damaged, Refused
from tierscale.pipeline.formats import samples as arithmetic
from tierscale.pipeline.formats.decoding import check_decode, decoding
from tierscale.pipeline.formats.fingerprint import file_identity
from tierscale.pipeline.formats.orientation import UprightPixels, upright_bytes
from tierscale.pipeline.formats.raster.jpeg2000_boxes import (
    BOXES_MARK,
    CMYK,
    COLOURS,
    Meaning,
    boxes,
    read_meaning,
)
from tierscale.pipeline.formats.raster.whole import WholePixels
from tierscale.pipeline.formats.source import Alpha, Colour, Samples, Source, ingest_bytes
from tierscale.pipeline.plan.options import Selection

# Markers: start and size of a codestream, start of a tile-part, end of the codestream.
SOC, SIZ, SOT, EOC = b"\xff\x4f", b"\xff\x51", b"\xff\x90", b"\xff\xd9"
INKS = "CMYK was turned to RGB by (1 - c)(1 - k), without its profile"
BY_COUNT: tuple[Colour, ...] = ("grey", "greya", "rgb", "rgba")
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
            meaning = read_meaning(file, uri)
        # OpenJPEG decodes into 32-bit integers, which are then copied.
        held = (8 + 2 * header.dtype.itemsize) * int(np.prod(header.shape))
        inks = meaning.space == CMYK
        shape = (3, *header.shape[1:]) if inks else header.shape
        stored = WholePixels(shape, header.dtype, partial(decode, uri, inks))
        needed = held + ingest_bytes(header.shape, header.dtype)
        needed += upright_bytes(stored, meaning.orientation)
        check_decode(uri, needed, max_bytes)
    colour, alpha = samples_of(meaning, header.shape[0], uri)
    return Source(
        uri=uri,
        pixels=UprightPixels(stored, meaning.orientation) if meaning.orientation > 1 else stored,
        samples=Samples(colour, alpha, header.bits if header.bits not in (8, 16) else None),
        metadata=meaning.metadata,
        random_access=False,
        decode_bytes=needed,
        notes=(*meaning.notes, *((INKS,) if inks else ())),
        identify=partial(file_identity, uri, "JPEG2000", selection),
    )


def samples_of(meaning: Meaning, count: int, uri: str) -> tuple[Colour, Alpha | None]:
    """Colour and alpha of `count` components, as the boxes say; guessed by their number if silent.

    Refused: the colour space is not supported, or has another number of components.
    """
    if meaning.space is None:
        guessed: Alpha | None = "straight" if count in (2, 4) else None
        profile = meaning.metadata.icc
        if profile is not None and profile[16:20] == b"CMYK":
            raise Refused(
                f"{uri}: JPEG 2000 of CMYK with a profile is not supported; convert it to RGB"
            )
        return BY_COUNT[count - 1], meaning.alpha or guessed
    colours = COLOURS.get(meaning.space)
    if colours is None:
        raise Refused(
            f"{uri}: JPEG 2000 of the enumerated colour space {meaning.space} is not supported;"
            " convert it to RGB"
        )
    if count == colours:
        return ("rgb" if colours > 1 else "grey"), None
    if count == colours + 1 and colours < 4:
        # Many writers leave out what tells a fourth component from another: it is taken as alpha.
        return ("rgba" if colours == 3 else "greya"), meaning.alpha or "straight"
    if colours > count:
        raise Refused(
            f"{uri}: its colour space has {colours} components but there are {count}; convert it to"
            " TIFF"
        )
    return "channels", None


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


def decode(uri: str, inks: bool) -> np.ndarray:
    """The picture as (channels, y, x). OpenJPEG is strict here: what is cut off is an error.

    inks: whether the components are CMYK, to be turned to RGB.
    """
    with open(uri, "rb") as file:
        block = imagecodecs.jpeg2k_decode(file.read())
    block = arithmetic.from_cmyk(block) if inks else block
    return arithmetic.channels_first(block) if block.ndim == 3 else block[None]
