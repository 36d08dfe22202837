"""How AnySR is trained."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from tierscale.models.contract.checkpoints import ModelSpec
from tierscale.models.contract.upscaler import Placement, hr_length
from tierscale.models.runtime.resample import resample
from tierscale.models.train.methods import anysr
from tierscale.models.train.recipes import build, recipe

pytestmark = pytest.mark.usefixtures("one_thread")


def test_anysr_learns_from_each_crop_at_its_own_place() -> None:
    spec = ModelSpec(
        "anysr",
        0,
        {
            "encoder_arguments": {"blocks": 1, "features": 8},
            "head": "liif",
            "head_arguments": {"hidden": [8]},
        },
    )
    network, lr = build(spec, 0), torch.rand(3, 3, 12, 12)
    for scale in (Fraction(2), Fraction(27, 10)):
        with torch.no_grad():
            together = anysr.enlarge(network, lr, spec, scale, 0.5)
            alone = [anysr.enlarge(network, one, spec, scale, 0.5) for one in lr.split(1)]
        torch.testing.assert_close(together, torch.cat(alone))
    with pytest.raises(ValueError, match="3 windows cannot lie at 1 places"):
        resample(lr, Placement.whole((12, 12), Fraction(27, 10)))


def test_anysr_learns_full_width_in_every_batch_and_the_least_in_half(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And a third of the batches has the largest scale."""
    calls: list[tuple[Fraction, float]] = []

    def enlarge(network: Any, lr: Any, spec: ModelSpec, scale: Fraction, width: float) -> Any:
        calls.append((scale, width))
        return torch.zeros(
            *lr.shape[:2], hr_length(lr.shape[2], scale), hr_length(lr.shape[3], scale)
        )

    monkeypatch.setattr(anysr, "enlarge", enlarge)
    spec, _ = recipe("anysr-edsr")
    torch.manual_seed(0)
    crops = torch.rand(400, 1, 3, 16, 16)
    for lr in crops:
        hr = lr.repeat_interleave(4, 2).repeat_interleave(4, 3)
        anysr.STAGES["whole"].loss(torch.nn.Identity(), lr, hr, spec)
    scales, widths = (list(column) for column in zip(*calls, strict=True))
    assert min(scales) == Fraction(11, 10)
    assert widths[::2] == [1.0] * len(crops)
    assert 0.4 < np.mean(np.equal(widths[1::2], 0.5)) < 0.6
    assert set(widths[1::2]) == set(anysr.WIDTHS)
    assert 0.28 < np.mean(np.equal(scales, 4)) < 0.42
