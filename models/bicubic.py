"""Bicubic enlargement: the tier that costs next to nothing."""

from collections.abc import Mapping
from fractions import Fraction

import torch
from torch import Tensor

from models.resample import multiply_adds, reach, resample
from models.upscaler import Placement, Upscaled


class Bicubic:
    """Keys' bicubic at any scale; windows (N, C, h, w), 0..1; overshoots are left for the caller to clip."""

    scales: frozenset[Fraction] | None = None
    reach: int | None = reach("bicubic")

    def __call__(self, windows: Tensor, place: Placement, effort: float = 1.0, given: Mapping[str, float] = {}) -> Upscaled:
        pixels = resample(windows, place, "bicubic")
        channels, height, width = windows.shape[1:]
        spent = multiply_adds(channels, height, width, pixels.shape[2], pixels.shape[3], "bicubic")
        return Upscaled(pixels, torch.full((len(windows),), float(spent), dtype=torch.float64))
