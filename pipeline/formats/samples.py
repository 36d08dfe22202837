"""Stored samples to final pixels: pure arithmetic, each pixel by itself.

So any block of an image may be converted alone. Blocks come as (y, x, samples); `channels_first`
makes them (channels, y, x).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tierscale.pipeline.errors import Refused

# CIE L*a*b* at D50 to linear sRGB: Bradford-adapted matrix from brucelindbloom.com, white of D50
# from ICC.1:2010.
D50 = np.array([0.9642, 1.0, 0.8249])
XYZ_D50_TO_SRGB = np.array(
    [
        [3.1338561, -1.6168667, -0.4906146],
        [-0.9787684, 1.9161415, 0.0334540],
        [0.0719453, -0.2289914, 1.4052427],
    ]
)


# Shares of red, green and blue in luma, by ITU-R BT.601.
BT601 = (0.299, 0.587, 0.114)


@dataclass(frozen=True, slots=True)
class YCbCr:
    """What YCbCr samples stand for.

    luma: shares of red, green and blue in Y. reference: stored values of black and white Y, and of
    no and full Cb, and Cr; None: the whole range (JFIF 1.02).
    """

    luma: tuple[float, ...] = BT601
    reference: tuple[float, ...] | None = None


JFIF = YCbCr()


def channels_first(block: np.ndarray) -> np.ndarray:
    """(y, x, samples) -> (samples, y, x)."""
    return np.moveaxis(block, -1, 0)


def largest(block: np.ndarray) -> int:
    """The largest value of the block's unsigned type."""
    return int(np.iinfo(block.dtype).max)


def from_bits(block: np.ndarray, bits: int) -> np.ndarray:
    """Samples of fewer than 8 bits spread over 0..255, rounded; exact for 1, 2 and 4 bits."""
    top = 2**bits - 1
    table = (np.arange(top + 1, dtype=np.uint16) * 255 + top // 2) // top
    return table.astype(np.uint8)[block]


def from_cmyk(block: np.ndarray) -> np.ndarray:
    """Ink (0 is none) to RGB by the plain formula (1 - c)(1 - k): (y, x, 4+) -> (y, x, 3).

    Samples beyond the four inks are dropped.
    """
    top = largest(block)
    ink = block[..., :4].astype(np.uint32)  # 65535 * 65535 + 32767 still fits
    return (((top - ink[..., :3]) * (top - ink[..., 3:4]) + top // 2) // top).astype(block.dtype)


def from_lab(block: np.ndarray, signed: bool) -> np.ndarray:
    """CIE L*a*b* (D50) of 8 or 16 bits to sRGB of the same depth: (y, x, 3) -> (y, x, 3).

    Colours outside the gamut of sRGB are clipped. signed: a and b are two's complement (TIFF
    CIELAB); else they are shifted by half the range (ICCLab).
    """
    top, unit = largest(block), (largest(block) + 1) // 256
    lightness = block[..., 0].astype(np.float32) * (100.0 / top)
    stored = block[..., 1:3].astype(np.float32)
    half = (top + 1) / 2
    ab = (np.where(stored >= half, stored - 2 * half, stored) if signed else stored - half) / unit
    y = (lightness + 16) / 116
    f = np.stack([y + ab[..., 0] / 500, y, y - ab[..., 1] / 200], axis=-1)
    xyz = np.where(f > 6 / 29, f**3, (f - 4 / 29) * 3 * (6 / 29) ** 2) * D50
    linear = np.clip(xyz @ XYZ_D50_TO_SRGB.T, 0, 1)
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.rint(srgb * top).astype(block.dtype)


def from_ycbcr(block: np.ndarray, coding: YCbCr = JFIF) -> np.ndarray:
    """YCbCr to RGB of the same depth (TIFF 6.0, sections 20 and 21): (y, x, 3) both."""
    top = largest(block)
    half = (top + 1) // 2
    reference = coding.reference or (0, top, half, top, half, top)
    # Where luma is full and where chroma is: at the top, and half way up above its middle.
    spans = (top, half - 1, half - 1)
    y, cb, cr = (
        (block[..., i].astype(np.float32) - reference[2 * i])
        * (spans[i] / (reference[2 * i + 1] - reference[2 * i]))
        for i in range(3)
    )
    red, green, blue = coding.luma
    r, b = y + (2 - 2 * red) * cr, y + (2 - 2 * blue) * cb
    g = (y - red * r - blue * b) / green
    return np.clip(np.rint(np.stack([r, g, b], axis=-1)), 0, top).astype(block.dtype)


def from_palette(block: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Indices (y, x, 1) looked up in a table (entries, channels) -> (y, x, channels).

    IndexError: an index lies beyond the table.
    """
    return table[block[..., 0]]


def pixel_type(dtype: np.dtype, uri: str) -> tuple[np.dtype, str | None]:
    """The type in which pixels of `dtype` are read, and a sentence where that is another type.

    Values are unchanged, except integers of 32 bits and float64, which are rounded to the 24 bits
    of a float32. Refused: the type is none of an image.
    """
    dtype = np.dtype(dtype).newbyteorder("=")
    if dtype in (np.uint8, np.uint16, np.float32):
        return dtype, None
    if dtype == np.bool_:
        return np.dtype(np.uint8), "1-bit samples were spread to 0 and 255"
    if dtype in (np.int8, np.int16, np.float16):
        return np.dtype(np.float32), f"{dtype} samples are kept as float32, values unchanged"
    if dtype in (np.uint32, np.int32, np.float64):
        return (
            np.dtype(np.float32),
            f"{dtype} samples are kept as float32, rounded to its 24 significant bits",
        )
    raise Refused(
        f"{uri}: samples of type {dtype} cannot be enlarged; convert them to uint8, uint16 or"
        " float32"
    )


def to_type(block: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """`block` in the type that `pixel_type` chose; a float64 beyond float32 becomes infinite."""
    if block.dtype == np.bool_:
        return block.astype(np.uint8) * np.uint8(255)
    with np.errstate(over="ignore"):
        return block.astype(dtype, copy=False)
