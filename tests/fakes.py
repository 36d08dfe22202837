"""Stand-in networks for tests of the pipeline: exact, quick, and of a known reach."""

from fractions import Fraction

import torch
import torch.nn.functional as F

from tierscale.models.contract.upscaler import Upscaled
from tierscale.models.runtime.resample import resample


class Smear:
    """A fixed convolution of `reach` pixels and a bicubic enlargement; `most` windows' pixels fit
    in its memory.
    """

    scales: frozenset[Fraction] | None = frozenset({Fraction(2), Fraction(4)})
    reach: int | None
    parameters, control, efforts = 0, None, None

    def __init__(self, reach: int = 5, most: int | None = None, offset: float = 0.0) -> None:
        self.reach, self.most, self.offset = reach, most, offset
        side = 2 * (reach - 2) + 1
        kernel = torch.randn(1, 1, side, side, generator=torch.Generator().manual_seed(reach))
        self.kernel = kernel / kernel.abs().sum() / 3

    has_bfloat16 = False

    def to(self, device):
        return self

    def to_bfloat16(self):
        return self

    def cost(self, scale, effort=1.0):
        return 1000.0

    def memory(self, scale):
        return 100.0

    def __call__(self, windows, place, effort=1.0, settings={}):
        count, channels, height, width = windows.shape
        if self.most is not None and count * height * width > self.most:
            raise torch.OutOfMemoryError("the stand-in's memory is full")
        flat = windows.reshape(count * channels, 1, height, width)
        smeared = (
            windows
            + F.conv2d(flat, self.kernel, padding=self.reach - 2).reshape(windows.shape)
            + self.offset
        )
        pixels = resample(smeared, place)
        return Upscaled(pixels, torch.full((count,), 1000.0 * height * width, dtype=torch.float64))
