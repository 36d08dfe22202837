"""What the boxes of an AVIF say of its colours, which Pillow does not tell."""

from __future__ import annotations

import struct

from tierscale.pipeline.errors import Refused
from tierscale.pipeline.formats.profile import coded_profile

# The properties of a picture stand in the first box after the one that names the format.
HEAD_BYTES = 1 << 16
HIGH_BIT_DEPTH = 0x40


def avif_profile(uri: str) -> bytes | None:
    """The ICC profile of the code points that an AVIF states (nclx); None: as sRGB.

    Refused: its samples have more than 8 bits, or its colours are such as no output can carry.
    """
    with open(uri, "rb") as file:
        head = file.read(HEAD_BYTES)
    coder = head.find(b"av1C")
    if coder >= 0 and len(head) > coder + 6 and head[coder + 6] & HIGH_BIT_DEPTH:
        raise Refused(
            f"{uri}: AVIF of more than 8 bits is not supported; convert it to PNG or TIFF of 16"
            " bits"
        )
    stated = head.find(b"colrnclx")
    if stated < 0 or len(head) < stated + 12:
        return None
    primaries, transfer = struct.unpack(">HH", head[stated + 8 : stated + 12])
    return coded_profile(primaries, transfer, uri)
