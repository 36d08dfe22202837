"""How faithful an enlarged picture is to the one it was made of, in dB.

It is shrunk again, by the antialiased bicubic that networks are trained with, at the exact scale,
and compared with its source. A network that works keeps what it was given: EDSR 52 dB on average.
The same result moved by half an input pixel gives 26 dB, with channels swapped 18, black 6.

The shrinking is that of train.data.shrink (MATLAB's imresize) away from borders, some times faster:
bands of outputs share one small matrix, because weights repeat with the scale's denominator.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from tierscale.models.runtime.resample import cubic

# What is said of a picture that does not differ at all, dB.
CAP = 99.0
# Source pixels at each border that are not compared: what is shrunk there needs pixels beyond.
RIM = 2
# Shrunk pixels that one matrix makes.
BAND = 16
# Floats between rows of a band.
SPARE = 16
# Side of the squares of source pixels that are averaged before results of networks that take grain
# away are compared.
AVERAGED = 8

# Writes pixels (h, w) of any type into float32 of the same shape: fill(target, pixels).
Fill = Callable[[np.ndarray, np.ndarray], None]


@dataclass(frozen=True, slots=True)
class Bound:
    """From where on the tiles of a network are doubted.

    decibels: fidelity of the worst tile of pictures that it was measured on, less a margin. block:
    side of the squares of source pixels that are averaged first.
    """

    decibels: float
    block: int = 1


def bound_of(card: object) -> Bound | None:
    """The bound on a network's card, as JSON has it; None: it was not measured."""
    entry = card.get("fidelity") if isinstance(card, dict) else None
    if not isinstance(entry, dict) or not isinstance(entry.get("bound"), int | float):
        return None
    return Bound(float(entry["bound"]), int(entry.get("block", 1)))


@lru_cache(maxsize=32)
def band(scale: Fraction) -> tuple[int, int, Tensor]:
    """What makes a band of shrunk pixels of a row: its first input, its outputs, their weights.

    The band has outputs 0 to `count`, a multiple of the denominator, so that all bands are alike.
    Its first input lies before the row. Weights float32, (count, inputs), rows adding up to one.
    """
    count = -(-BAND // scale.denominator) * scale.denominator
    factor = float(scale)
    centres = (torch.arange(count, dtype=torch.float64) + 0.5) * factor - 0.5
    first = math.floor(0.5 * factor - 0.5 - 2 * factor) + 1
    last = math.ceil((count - 0.5) * factor - 0.5 + 2 * factor)
    inputs = torch.arange(first, last, dtype=torch.float64)
    weights = cubic((centres[:, None] - inputs) / factor)
    return first, count, (weights / weights.sum(dim=1, keepdim=True)).float()


def shrunk(
    pixels: np.ndarray, scale: Fraction, size: tuple[int, int], fill: Fill = np.copyto
) -> np.ndarray:
    """Pixels (H, W) shrunk to (h - 2 * RIM, w - 2 * RIM), float32, without what is near borders.

    size: h and w, of the source that they were made of. fill: brings a band of rows to float32.
    """
    first, count, weights = band(scale)
    step, taps = int(count * scale), weights.shape[1]
    start = RIM // count * count
    down, across = (-(-(length - RIM - start) // count) for length in size)
    origin = start // count * step + first
    # Rows that lie a power of two apart would share few places of the cache.
    rows = np.zeros((taps, pixels.shape[1] + SPARE), np.float32)[:, : pixels.shape[1]]
    # With room for what the first and the last band need beyond the rows.
    ready = torch.zeros(count, (across - 1) * step + taps)
    inner = slice(max(0, -origin), min(ready.shape[1], pixels.shape[1] - origin))
    used = slice(origin + inner.start, origin + inner.stop)
    result = torch.empty(down, count, across * count)
    for index in range(down):
        top = origin + index * step
        part = pixels[max(0, top) : top + taps]
        fill(rows[max(0, -top) : max(0, -top) + len(part)], part)
        ready[:, inner] = (weights @ torch.from_numpy(rows))[:, used]
        windows = ready.unfold(1, taps, step).reshape(-1, taps)
        result[index] = (windows @ weights.T).view(count, -1)
    kept = slice(RIM - start, size[0] - RIM - start), slice(RIM - start, size[1] - RIM - start)
    return result.view(down * count, -1)[kept].numpy()


def decibels(errors: np.ndarray) -> np.ndarray:
    """Mean squared errors of values 0..1 as dB, at most CAP; NaN stays NaN."""
    return -10 * np.log10(np.maximum(errors, 10 ** (-CAP / 10)))


def tile_errors(
    difference: np.ndarray,
    valid: np.ndarray,
    tiles: tuple[Sequence[slice], Sequence[slice]],
    block: int = 1,
) -> np.ndarray:
    """Mean squared error of each tile, (rows, columns), float64; NaN where nothing is left of one.

    difference: between shrunk and source, (h, w). valid: which pixels count, (h, w). tiles: rows
    and columns of each. block: side of the squares of source pixels that both pictures are averaged
    over first, which leaves grain out.
    """
    return np.array(
        [[_error(difference[ys, xs], valid[ys, xs], block) for xs in tiles[1]] for ys in tiles[0]],
        np.float64,
    ).reshape(len(tiles[0]), len(tiles[1]))


def _error(difference: np.ndarray, valid: np.ndarray, block: int) -> float:
    """Mean squared error over the valid pixels of a tile; NaN: there are none."""
    if not valid.any():
        return math.nan
    if block == 1:
        return float(np.square(difference[valid], dtype=np.float64).mean())
    counts, sums = (_sums(values, block) for values in (valid, difference * valid))
    known = counts > 0
    means = sums[known] / counts[known]
    return float(np.average(np.square(means), weights=counts[known]))


def _sums(values: np.ndarray, block: int) -> np.ndarray:
    """Sums over squares of (h, w), float64; those at the far edges may be smaller."""
    rows, columns = (np.arange(0, length, block) for length in values.shape)
    return np.add.reduceat(
        np.add.reduceat(values.astype(np.float64), rows, axis=0), columns, axis=1
    )
