"""From a source's values to the 0..1 RGB triples that networks take, and back.

A network takes three channels. A colour image is one such triple; a grey, or each channel of a
scientific image, is fed as R = G = B and the three results are averaged. Alpha is enlarged by
bicubic; colours that were multiplied by it are divided before and multiplied after, and colours
that it hides are replaced, because they would bleed into the rims of what is seen. DESIGN section 7
of the project's docs tells why.
"""

from collections.abc import Callable, Sequence

import numpy as np

from tierscale.pipeline.plan.value_range import ValueRange

# Reads the window y0..y1, x0..x1 of an image: (c, y1 - y0, x1 - x0), the source's own type.
Read = Callable[[int, int, int, int], np.ndarray]

# Inside an area of this many pixels around, all at an end of the range, the output is held exactly
# at that end.
FLAT_REACH = 2
# Pixels that no-data, and colours under an alpha of 0, are filled from their neighbourhood; farther
# inside they stand at half the range.
FILL_REACH = 4
# Rows of an output that are brought to its type at a time.
ROWS = 32


def missing(pixels: np.ndarray, nodata: float | None) -> np.ndarray | None:
    """Where all channels of (c, h, w) hold the no-data value: (h, w) bool; None: nowhere."""
    if nodata is None:
        return None
    marks = (
        np.isnan(pixels) if np.isnan(nodata) else pixels == np.asarray(nodata).astype(pixels.dtype)
    )
    mask = marks.all(axis=0)
    return mask if mask.any() else None


def to_unit(
    pixels: np.ndarray, value_range: ValueRange, mask: np.ndarray | None = None
) -> np.ndarray:
    """(c, h, w) of the source's type to float32, low..high to 0..1.

    Masked pixels are filled from their neighbours.
    """
    span = value_range.high - value_range.low
    if span <= 0:
        unit = np.zeros(pixels.shape, np.float32)
    elif value_range.low == 0 and pixels.dtype.itemsize <= 2:
        unit = pixels.astype(np.float32) / np.float32(span)
    else:
        unit = ((pixels.astype(np.float64) - value_range.low) / span).astype(np.float32)
    return unit if mask is None else _fill(unit, mask)


def alpha_range(dtype: np.dtype) -> ValueRange:
    """Alpha has its type's full range, whatever the colours' range is."""
    high = 1.0 if dtype.kind == "f" else float(np.iinfo(dtype).max)
    return ValueRange(0.0, high, 0.0, high)


def straight_unit(
    pixels: np.ndarray, value_range: ValueRange, alpha: str | None, mask: np.ndarray | None = None
) -> np.ndarray:
    """(c, h, w) of the source's type to float32, 0..1, as networks may see it; alpha stays last.

    Colours that were multiplied by alpha are divided by it. Masked pixels and colours under an
    alpha of 0 are filled from their neighbours, so that nothing hidden reaches what is seen.
    """
    if alpha is None:
        return to_unit(pixels, value_range, mask)
    colours = to_unit(pixels[:-1], value_range)
    opacity = to_unit(pixels[-1:], alpha_range(pixels.dtype))
    if alpha == "premultiplied":
        colours = np.clip(colours / np.maximum(opacity, 1e-6), 0, 1)
    unseen = hidden(pixels) if mask is None else hidden(pixels) | mask
    if unseen.any():
        colours = _fill(colours, unseen)
    return np.concatenate([colours, opacity])


def hidden(pixels: np.ndarray) -> np.ndarray:
    """Where the last channel of (c, h, w), alpha, lets nothing be seen: (h, w) bool."""
    return np.asarray(pixels[-1] <= 0)


def deep_inside(mask: np.ndarray) -> np.ndarray:
    """The part of a mask (h, w) that filling does not reach; beyond the array it goes on."""
    return eroded(mask[None], FILL_REACH)[0]


def from_unit(unit: np.ndarray, value_range: ValueRange, dtype: np.dtype) -> np.ndarray:
    """float32 (c, h, w), 0..1, to the source's type: scaled, bounded, and rounded for integers."""
    wide = np.dtype(np.float32 if dtype.itemsize <= 2 else np.float64)
    result = np.empty(unit.shape, dtype)
    for channel in range(len(unit)):
        for row in range(0, unit.shape[1], ROWS):  # in pieces that stay in cache
            values: np.ndarray = unit[channel, row : row + ROWS].astype(wide)
            values *= wide.type(value_range.high - value_range.low)
            values += wide.type(value_range.low)
            if dtype.kind != "f":
                np.rint(values, out=values)
            np.clip(
                values, wide.type(value_range.floor), wide.type(value_range.ceiling), out=values
            )
            result[channel, row : row + ROWS] = values
    return result


def _fill(unit: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Fill masked pixels with the mean of known neighbours, ring by ring.

    The result depends on FILL_REACH pixels around, never on the window.
    """
    filled = np.where(mask, np.float32(0), unit)
    known = (~mask).astype(np.float32)
    for _ in range(FILL_REACH):
        total, count = _sum3(filled * known), _sum3(known[None])
        ring = (known[None] == 0) & (count > 0)
        filled = np.where(ring, total / np.maximum(count, 1), filled).astype(np.float32)
        known = np.maximum(known, ring[0].astype(np.float32))
    return np.where(known[None] == 0, np.float32(0.5), filled).astype(np.float32)


def _sum3(values: np.ndarray) -> np.ndarray:
    """Sum of each 3x3 neighbourhood of (c, h, w), zeros outside."""
    padded = np.pad(values, ((0, 0), (1, 1), (1, 1)))
    rows = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    return rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]


def rgb_batch(unit: np.ndarray, colour: str) -> np.ndarray:
    """The RGB triples that networks take, (n, 3, h, w), of an image (c, h, w), 0..1.

    Alpha is left out.
    """
    unit = unit[:-1] if colour in ("rgba", "greya") else unit
    if colour in ("rgb", "rgba"):
        return np.ascontiguousarray(unit[None])
    return np.ascontiguousarray(np.broadcast_to(unit[:, None], (len(unit), 3, *unit.shape[1:])))


def merge(enlarged: Sequence[np.ndarray], colour: str) -> np.ndarray:
    """Enlarged triples, each (3, H, W), back to the image's channels without alpha: (c, H, W)."""
    if colour in ("rgb", "rgba"):
        return enlarged[0]
    return np.stack([triple.mean(axis=0, dtype=np.float32) for triple in enlarged])


def ends(unit: np.ndarray) -> list[tuple[np.ndarray, float]]:
    """Where each channel is flat at an end of the range for FLAT_REACH pixels around.

    [(mask (c, h, w), value)], value 0 or 1.

    A network turns black into something slightly else; a person who sees black expects black.
    """
    found = []
    for value in (0.0, 1.0):
        at_end = unit == np.float32(value)
        if at_end.any():
            mask = eroded(at_end, FLAT_REACH)
            if mask.any():
                found.append((mask, value))
    return found


def eroded(mask: np.ndarray, by: int) -> np.ndarray:
    """True where all pixels within `by` on each axis are; pixels beyond the array count as true."""
    for axis in (1, 2):
        width = [(0, 0)] * 3
        width[axis] = (by, by)
        padded = np.pad(mask, width, constant_values=True)
        length = mask.shape[axis]
        parts = [padded.take(range(step, step + length), axis=axis) for step in range(2 * by + 1)]
        mask = np.logical_and.reduce(parts)
    return mask


def nearest(start: int, stop: int, numerator: int, denominator: int, length: int) -> np.ndarray:
    """Input pixel that holds the centre of each output pixel start..stop of one axis.

    numerator, denominator: of the scale. length: input pixels of the axis.
    """
    positions = (2 * np.arange(start, stop) + 1) * denominator // (2 * numerator)
    return np.minimum(positions, length - 1)
