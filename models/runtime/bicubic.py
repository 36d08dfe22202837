"""Bicubic enlargement: the tier that costs next to nothing."""

from collections.abc import Mapping
from fractions import Fraction

import torch
from torch import Tensor

from tierscale.models.contract.efforts import Efforts, check_effort
from tierscale.models.contract.upscaler import LARGE, Placement, Upscaled, hr_length
from tierscale.models.runtime.resample import multiply_adds, reach, resample


class Bicubic:
    """Keys' bicubic at any scale; windows (N, C, h, w), 0..1.

    Overshoots are left for the caller to clip.
    """

    scales: frozenset[Fraction] | None = None
    reach: int | None = reach("bicubic")
    parameters = 0
    control: str | None = None
    efforts: Efforts | None = None
    has_bfloat16 = False

    def __call__(
        self,
        windows: Tensor,
        place: Placement,
        effort: float = 1.0,
        settings: Mapping[str, float] = {},
    ) -> Upscaled:
        check_effort(effort)
        pixels = resample(windows, place, "bicubic")
        channels, width = windows.shape[1], windows.shape[3]
        macs = multiply_adds(channels, width, pixels.shape[2], pixels.shape[3], "bicubic")
        return Upscaled(pixels, torch.full((len(windows),), float(macs), dtype=torch.float64))

    def to(self, device: str) -> "Bicubic":
        """There are no weights to move."""
        return self

    def to_bfloat16(self) -> "Bicubic":
        """What it makes is all residual, and stays float32."""
        return self

    def cost(self, scale: Fraction, effort: float = 1.0) -> float:
        """Multiply-adds for each input pixel of a large window."""
        hr = hr_length(LARGE, scale)
        return multiply_adds(3, LARGE, hr, hr, "bicubic") / LARGE**2

    def memory(self, scale: Fraction) -> float:
        """Bytes for each input pixel of a window.

        The result, three times where its taps are gathered, and its rows.
        """
        results = 1 if scale.denominator == 1 else 3
        return 12 * (results * float(scale) ** 2 + 4 * float(scale) + 2)
