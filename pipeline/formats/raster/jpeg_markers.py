"""The markers of a JPEG: what decoders cannot do is refused, and damage that they hide is told.

libjpeg makes up for damaged data without a word (ITU-T T.81: markers in annex B, codes in F and G).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from tierscale.pipeline.errors import Refused

SOI, EOI, SOS, DHT, DRI = 0xD8, 0xD9, 0xDA, 0xC4, 0xDD
# Frames that Pillow decodes: baseline, extended and progressive, by Huffman or arithmetic codes.
FRAMES = (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)
LOSSLESS, HIERARCHICAL = (0xC3, 0xCB), (0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF)
HUFFMAN, PROGRESSIVE = (0xC0, 0xC1, 0xC2), (0xC2, 0xCA)
# Inside coded data: a byte of 255, and the restart markers.
STUFFED, RESTARTS = 0x00, range(0xD0, 0xD8)
# A lost sector of a disk is mostly zeros. So many of them in coded data are many blocks, each of
# whose coefficients is the most negative of its class, unless the shortest code ends a block.
ZEROS = 64


@dataclass(slots=True)
class Coding:
    """What the segments so far say. frame: its marker. interval: units between restart markers.

    units: in the frame. tables: by number, the first symbol of the tables of AC coefficients.
    """

    frame: int = 0
    interval: int = 0
    units: int = 0
    components: int = 0
    tables: dict[int, int] = field(default_factory=dict)


def check_jpeg(data: bytes, uri: str) -> list[str]:
    """Notes on damage that a decoder would hide in a JPEG.

    Refused: it has other than 8 bits, or is lossless or hierarchical.
    """
    coding = Coding()
    for marker, start, stop, end in segments(data):
        body = data[start:stop]
        if marker in (*FRAMES, *LOSSLESS, *HIERARCHICAL) and len(body) >= 6:
            check_frame(marker, body[0], uri)
            coding.frame, coding.components = marker, body[5]
            coding.units = units(body)
        elif marker == DRI and len(body) >= 2:
            coding.interval = int.from_bytes(body[:2], "big")
        elif marker == DHT:
            coding.tables |= dict(first_symbols(body))
        elif marker == SOS:
            note = damage(data, (stop, end), body, coding)
            if note:
                return [f"{note}; a part of the picture is wrong, fetch the file again"]
    return []


def segments(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """(marker, first byte of its contents, end, end of the coded data behind it) up to the end of
    the image.

    It stops where there is no marker, or where a segment is longer than the file: the decoder says
    so.
    """
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker == EOI:
            return
        stop = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if stop > len(data):
            return
        end = scan_end(data, stop) if marker == SOS else stop
        yield marker, at + 4, stop, end
        at = end


def scan_end(data: bytes, start: int) -> int:
    """Where the coded data that begin at `start` end: at the next marker that is none of theirs."""
    at = start
    while True:
        at = data.find(b"\xff", at)
        if at < 0 or at + 1 >= len(data):
            return len(data)
        if data[at + 1] != STUFFED and data[at + 1] not in RESTARTS:
            return at
        at += 2


def check_frame(marker: int, bits: int, uri: str) -> None:
    """Refuse frames that Pillow cannot decode."""
    if marker in LOSSLESS:
        kind = "lossless JPEG"
    elif marker in HIERARCHICAL:
        kind = "hierarchical JPEG"
    else:
        kind = f"JPEG of {bits} bits"
    if marker not in FRAMES or bits != 8:
        raise Refused(f"{uri}: {kind} is not supported; convert it to PNG or TIFF")


def units(frame: bytes) -> int:
    """Units (MCUs) of a scan of all components: blocks of as many samples as the factors say."""
    height, width = (int.from_bytes(frame[at : at + 2], "big") for at in (1, 3))
    factors = [frame[7 + 3 * i] for i in range(frame[5]) if 7 + 3 * i < len(frame)]
    if not factors:
        return 0
    across, down = max(f >> 4 for f in factors) or 1, max(f & 15 for f in factors) or 1
    if len(factors) == 1:
        across = down = 1
    return -(-width // (8 * across)) * -(-height // (8 * down))


def first_symbols(body: bytes) -> Iterator[tuple[int, int]]:
    """(number, symbol of the shortest code) of the tables of AC coefficients in a DHT segment."""
    at = 0
    while at + 17 <= len(body):
        count = sum(body[at + 1 : at + 17])
        if body[at] >> 4 and at + 17 < len(body) and count:
            yield body[at] & 15, body[at + 17]
        at += 17 + count


def damage(data: bytes, span: tuple[int, int], scan: bytes, coding: Coding) -> str | None:
    """What is wrong with the coded data of a scan, in words; None: nothing that can be seen."""
    start, stop = span
    found = np.frombuffer(data, np.uint8)[start:stop]
    marked = np.flatnonzero(found[:-1] == 0xFF)
    restarts = found[marked + 1]
    restarts = restarts[restarts != STUFFED]
    if coding.interval and scan[:1] == bytes((coding.components,)):
        expected = max(0, -(-coding.units // coding.interval) - 1)
        order = 0xD0 + np.arange(len(restarts)) % 8
        if len(restarts) != expected or (restarts != order).any():
            return f"of its {expected} restart markers {len(restarts)} are there, not all in order"
    if zeros_are_damage(scan, coding):
        at = data.find(bytes(ZEROS), start, stop)
        if at >= 0:
            behind = np.flatnonzero(found[at - start :])
            count = int(behind[0]) if len(behind) else stop - at
            return f"its coded data hold {count} zeros from byte {at} on"
    return None


def zeros_are_damage(scan: bytes, coding: Coding) -> bool:
    """Whether many zeros cannot be coded data: some table in use has no end of block as first code.

    Of a progressive JPEG only the scans of AC coefficients tell.
    """
    count = scan[0] if scan else 0
    if coding.frame not in HUFFMAN or len(scan) < 1 + 2 * count + 3:
        return False
    if coding.frame in PROGRESSIVE and not scan[-3]:
        return False
    used = [scan[2 + 2 * i] & 15 for i in range(count)]
    return any(coding.tables.get(table, 0) & 15 for table in used)
