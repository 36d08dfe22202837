"""Bicubic under the contract."""

from fractions import Fraction

import pytest
import torch

from tierscale.models.contract.upscaler import Placement, Upscaler
from tierscale.models.runtime import resample
from tierscale.models.runtime.bicubic import Bicubic

pytestmark = pytest.mark.usefixtures("one_thread")


def test_bicubic_keeps_the_contract() -> None:
    upscaler: Upscaler = Bicubic()
    x = torch.rand(2, 3, 9, 14)
    for scale in (Fraction(4), Fraction(27, 10)):
        place = Placement(scale, (9, 14), ((0, 0), (0, 0)))
        made = upscaler(x, place)
        assert made.pixels.shape == (2, 3, *place.hr_shape(9, 14))
        assert made.macs[0].item() == resample.multiply_adds(
            3, 14, *made.pixels.shape[2:], "bicubic"
        )
