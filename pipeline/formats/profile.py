"""ICC profiles that say what a file states of its colours in other ways.

Every output can carry an ICC profile, and every program reads one.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import imagecodecs
import numpy as np

from tierscale.pipeline.errors import Refused

# White of D65, and the primaries of Rec. 709: what holds where a PNG states a gamma alone.
D65 = (0.3127, 0.329)
REC709 = (0.64, 0.33, 0.3, 0.6, 0.15, 0.06)

# Of ITU-T H.273 all primaries with the white of D65, and the transfers that are powers.
PRIMARIES = {
    1: REC709,
    9: (0.708, 0.292, 0.17, 0.797, 0.131, 0.046),
    12: (0.68, 0.32, 0.265, 0.69, 0.15, 0.06),
}
GAMMAS = {4: 2.2, 5: 2.8, 8: 1.0}
SRGB_TRANSFER = 13
STEPS = np.linspace(0, 1, 1024)
SRGB_CURVE = np.where(STEPS <= 0.04045, STEPS / 12.92, ((STEPS + 0.055) / 1.055) ** 2.4).astype(
    np.float32
)


def profile(
    gamma: float,
    *,
    curve: np.ndarray | None = None,
    white: tuple[float, ...] = D65,
    primaries: tuple[float, ...] | None = REC709,
) -> bytes:
    """The profile of values that are linear light to the power of 1 / `gamma`.

    curve: linear light, 0 to 1, of values in equal steps from 0 to 1, in place of the power. white:
    chromaticity x, y. primaries: x, y of red, green and blue; None: the values are greys.
    """
    how = {"gamma": gamma} if curve is None else {"transferfunction": curve}
    if primaries is None:
        return undated(imagecodecs.cms_profile("gray", whitepoint=white, **how))
    return undated(imagecodecs.cms_profile("rgb", whitepoint=white, primaries=primaries, **how))


def undated(made: bytes) -> bytes:
    """A profile without the time at which it was made: the same colours are the same bytes.

    The time stands in bytes 24 to 35, and a digest of all in 84 to 99 (ICC.1:2010, 7.2).
    """
    return (
        made[:24] + struct.pack(">6H", 2000, 1, 1, 0, 0, 0) + made[36:84] + bytes(16) + made[100:]
    )


def is_profile(icc: object) -> bool:
    """Whether something is an ICC profile: its mark stands at byte 36 (ICC.1:2010, 7.2)."""
    return isinstance(icc, bytes) and icc[36:40] == b"acsp"


def are_chromaticities(points: Sequence[float]) -> bool:
    """Whether numbers can be chromaticities x, y of white, red, green and blue."""
    return len(points) == 8 and min(points[1::2]) > 0 and max(points) < 1


def coded_profile(primaries: int, transfer: int, uri: str) -> bytes | None:
    """The profile of coding-independent code points (ITU-T H.273, tables 2 and 3); None: as sRGB.

    Refused: an output cannot carry them, above all those of HDR.
    """
    if (primaries, transfer) in ((1, 13), (1, 1), (1, 6), (2, 2)):
        return None
    curve = SRGB_CURVE if transfer == SRGB_TRANSFER else None
    gamma = GAMMAS.get(transfer)
    if primaries not in PRIMARIES or (curve is None and gamma is None):
        raise Refused(
            f"{uri}: its colours have the primaries {primaries} and the transfer {transfer} of"
            " ITU-T H.273 (16 and 18 are HDR), which outputs cannot carry; convert it to sRGB or"
            " Display P3"
        )
    return profile(gamma or 2.2, curve=curve, primaries=PRIMARIES[primaries])


def adobe_rgb() -> bytes:
    """The profile of Adobe RGB (1998)."""
    return undated(imagecodecs.cms_profile("adobergb"))


def srgb() -> bytes:
    """The profile of sRGB."""
    return undated(imagecodecs.cms_profile("srgb"))
