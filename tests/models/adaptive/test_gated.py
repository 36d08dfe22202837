"""Residual blocks that count here and there."""

import pytest
import torch
import torch.nn.functional as F

from tierscale.models.adaptive.gated import spread

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (12, 7)])
def test_depths_spread_by_a_pixel(size: tuple[int, int]) -> None:
    depths = torch.rand(1, 1, *size)
    assert torch.equal(spread(depths), F.max_pool2d(depths, 3, 1, 1))
