"""VDSR, which enlarges first."""

import pytest
import torch
import torch.nn.functional as F

from tierscale.models.backbones.vdsr import Vdsr

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_vdsr_enlarges_first_as_torch_interpolates(scale: int) -> None:
    x = torch.rand(2, 3, 11, 14)
    expected = F.interpolate(x, scale_factor=scale, mode="bicubic", align_corners=False)
    torch.testing.assert_close(Vdsr(scale, 2, 4).enlarge(x), expected, atol=2e-6, rtol=0)
