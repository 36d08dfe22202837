"""Which values of a source become 0 and 1, and what may come out again."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class ValueRange:
    """How values become 0..1 and back.

    low, high: the values that become 0 and 1. floor, ceiling: bounds of what may come out.
    nodata: the value that marks pixels without data (may be NaN), or None.
    """

    low: float
    high: float
    floor: float
    ceiling: float
    nodata: float | None = None

    @staticmethod
    def fixed(low: float, high: float, dtype: np.dtype, nodata: float | None) -> "ValueRange":
        """A range that a person asked for: results are bounded by the data type alone."""
        floor, ceiling = limits(dtype)
        return ValueRange(low, high, floor, ceiling, nodata)

    @staticmethod
    def measured(extremes: Sequence[tuple[float, float]], nodata: float | None) -> "ValueRange":
        """The range of an image from the smallest and largest value of each of its parts.

        (inf, -inf) stands for a part without data. No result lies beyond the image's own values.
        """
        low, high = min(pair[0] for pair in extremes), max(pair[1] for pair in extremes)
        low, high = (low, high) if low <= high else (0.0, 0.0)
        return ValueRange(low, high, low, high, nodata)

    def to_json(self) -> dict[str, Any]:
        """JSON values; JSON knows neither infinity nor NaN, so those are written as text."""
        return {
            name: value if value is None or np.isfinite(value) else str(value)
            for name, value in asdict(self).items()
        }

    @staticmethod
    def from_json(plain: Mapping[str, Any]) -> "ValueRange":
        """The range that to_json() wrote."""
        nodata = plain["nodata"]
        low, high, floor, ceiling = (
            float(plain[name]) for name in ("low", "high", "floor", "ceiling")
        )
        return ValueRange(low, high, floor, ceiling, None if nodata is None else float(nodata))


def limits(dtype: np.dtype) -> tuple[float, float]:
    """Smallest and largest value of a data type; infinite for floats."""
    if dtype.kind == "f":
        return -np.inf, np.inf
    if dtype.kind == "b":
        return 0.0, 1.0
    info = np.iinfo(dtype)
    return float(info.min), float(info.max)


def holds(value: float, dtype: np.dtype) -> bool:
    """Whether a pixel of `dtype` can have this value: -9999 in bytes would wrap to 241."""
    if dtype.kind == "f":
        return True
    low, high = limits(dtype)
    return low <= value <= high and value == int(value)
