"""Smaller levels of an output, each from the one before."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tierscale.pipeline.plan.plan import Draft
from tierscale.pipeline.plan.value_range import ValueRange

# Rows that are averaged at a time.
ROWS = 16


@dataclass(frozen=True, slots=True)
class Averaging:
    """Which pixels count in a mean of 2x2, and how much.

    Values without data (`nodata`, and NaN in floats) do not count; where all four are such, so is
    the mean. Colours count by their alpha, so that those of clear pixels do not come out.

    alpha: whether the last channel is straight alpha. nodata: value that marks missing ones, or
    None. together: whether a pixel is missing only where all its channels hold that value.
    """

    alpha: bool = False
    nodata: float | None = None
    together: bool = False

    @classmethod
    def of(cls, draft: Draft, value_range: ValueRange) -> "Averaging":
        """How the output of a plan is averaged."""
        return cls(draft.alpha == "straight", value_range.nodata, draft.colour != "channels")

    def is_plain(self, dtype: np.dtype) -> bool:
        """Whether all pixels of a type count alike."""
        return dtype.kind != "f" and not self.alpha and self.nodata is None

    def mean(self, pixels: np.ndarray) -> np.ndarray:
        """Means of 2x2 pixels of (c, 2h, 2w): (c, h, w) float64."""
        known = self._known(pixels)
        values = np.where(known, pixels, 0).astype(np.float64)
        weights = known.astype(np.float64)
        if self.alpha:
            weights[:-1] *= values[-1:]
        total, weight = _sums(values * weights), _sums(weights)
        count = _sums(known.astype(np.float64))
        unweighted = _sums(values) / np.maximum(count, 1)
        missing = np.nan if self.nodata is None else self.nodata
        unweighted[count == 0] = missing
        return np.where(weight > 0, total / np.where(weight > 0, weight, 1), unweighted)

    def _known(self, pixels: np.ndarray) -> np.ndarray:
        """Where pixels hold data, (c, h, w)."""
        known = ~np.isnan(pixels) if pixels.dtype.kind == "f" else np.ones(pixels.shape, bool)
        if self.nodata is None or np.isnan(self.nodata):
            return known
        marked = pixels == np.asarray(self.nodata).astype(pixels.dtype)
        if self.together:
            marked = np.broadcast_to(marked.all(axis=0), pixels.shape)
        return known & ~marked


def half(
    size: tuple[int, int],
    shard: tuple[int, int],
    read: Callable[[tuple[int, int]], np.ndarray],
    averaging: Averaging | None = None,
) -> np.ndarray:
    """The pixels of a shard as means of 2x2 pixels of the level before; (c, H, W), its type.

    size: shards of the level before, rows and columns; read: the pixels of one of them.
    averaging: which pixels count; None: all alike, whatever they mean.
    """
    rows, columns = (
        range(2 * at, min(2 * at + 2, count)) for at, count in zip(shard, size, strict=True)
    )
    pixels = _joined([[read((y, x)) for x in columns] for y in rows])
    height, width = pixels.shape[1] // 2, pixels.shape[2] // 2
    plain = averaging is None or averaging.is_plain(pixels.dtype)
    mean_of = _plain_mean if averaging is None or plain else averaging.mean
    result = np.empty((len(pixels), height, width), pixels.dtype)
    for row in range(0, height, ROWS):
        mean = mean_of(pixels[:, 2 * row : 2 * (row + ROWS)])
        result[:, row : row + ROWS] = mean if pixels.dtype.kind == "f" else np.rint(mean)
    return result


def _plain_mean(pixels: np.ndarray) -> np.ndarray:
    """Means of 2x2 pixels of (c, 2h, 2w): (c, h, w) float."""
    total = np.float32 if pixels.dtype.itemsize <= 2 else np.float64
    return _sums(pixels, total) / 4


def _sums(values: np.ndarray, dtype: type[np.floating] = np.float64) -> np.ndarray:
    """Sums of 2x2 values of (c, 2h, 2w): (c, h, w)."""
    result = np.zeros((len(values), values.shape[1] // 2, values.shape[2] // 2), dtype)
    for dy in (0, 1):
        for dx in (0, 1):
            result += values[:, dy::2, dx::2]
    return result


def _joined(parts: list[list[np.ndarray]]) -> np.ndarray:
    """Arrays (c, h, w) by rows as one, of even height and width: an odd last row or column is
    repeated, so that its mean is itself.

    The arrays are taken out of `parts` one by one: all of them twice would be a worker's largest
    need of memory.
    """
    height, width = sum(row[0].shape[1] for row in parts), sum(part.shape[2] for part in parts[0])
    first = parts[0][0]
    whole = np.empty((len(first), height + height % 2, width + width % 2), first.dtype)
    top = 0
    for row in parts:
        left, tall = 0, row[0].shape[1]
        while row:
            part = row.pop(0)
            whole[:, top : top + tall, left : left + part.shape[2]] = part
            left += part.shape[2]
        top += tall
    if height % 2:
        whole[:, height] = whole[:, height - 1]
    if width % 2:
        whole[:, :, width] = whole[:, :, width - 1]
    return whole
