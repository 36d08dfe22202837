"""IPTC-IIM datasets (caption, keywords, rights), alone or among Photoshop's image resources."""

from __future__ import annotations

import struct

IPTC_RESOURCE = 0x0404
# Every dataset begins with this byte (IPTC-NAA Information Interchange Model 4, 1.5).
MARK = 0x1C


def iptc_of(block: bytes | None) -> bytes | None:
    """The IPTC datasets in a block, which may be image resources that hold them; None: no such."""
    if not block:
        return None
    if block[:1] == bytes((MARK,)):
        return block
    return resources(block).get(IPTC_RESOURCE) or None


def resources(block: bytes) -> dict[int, bytes]:
    """Photoshop's image resources by number; what follows a damaged one is left out.

    A mark "8BIM", the number, a name that is padded to even length, the length, the data, padded.
    """
    block = block.removeprefix(b"Photoshop 3.0\0")
    found: dict[int, bytes] = {}
    at = 0
    while block[at : at + 4] == b"8BIM" and at + 12 <= len(block):
        number, name = struct.unpack_from(">HB", block, at + 4)
        at += 6 + (name + 2) // 2 * 2
        if at + 4 > len(block):
            break
        length = struct.unpack_from(">I", block, at)[0]
        if at + 4 + length > len(block):
            break
        found.setdefault(number, block[at + 4 : at + 4 + length])
        at += 4 + length + length % 2
    return found
