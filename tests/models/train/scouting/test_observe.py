"""What tiers leave on photos."""

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch

from tierscale.models.runtime.bicubic import Bicubic
from tierscale.models.train.data.shrink import shrink
from tierscale.models.train.scouting import observe

pytestmark = pytest.mark.usefixtures("one_thread")


def constant(error: float) -> Callable[..., object]:
    """An upscaler that is `error` off everywhere where bicubic is exact."""

    def enlarge(windows: torch.Tensor, place: object) -> object:
        made = Bicubic()(windows, place)  # type: ignore[arg-type]
        return type(made)(made.pixels + error, made.macs)

    return enlarge


@pytest.mark.parametrize("scale", [Fraction(4), Fraction(8, 5)])
def test_errors_are_measured_for_each_input_pixel(scale: Fraction) -> None:
    side = int(32 / scale)
    flat = torch.full((3, 32, 32), 0.5)
    sample = observe.leave([constant(0.1), constant(0.2)], flat[:, :side, :side], flat, scale)  # type: ignore[list-item]
    assert sample.errors.shape == (2, side, side)
    assert sample.errors[0].flatten().tolist() == pytest.approx([0.01] * side**2, rel=1e-3)
    assert sample.errors[1].flatten().tolist() == pytest.approx([0.04] * side**2, rel=1e-3)
    # What is wrong at the far corner alone is told of the last input pixel alone.
    spoilt = flat.clone()
    spoilt[:, -1, -1] = 1.0
    errors = observe.leave([constant(0.0)], flat[:, :side, :side], spoilt, scale).errors[0]  # type: ignore[list-item]
    assert errors[-1, -1] > 0.01
    assert errors.flatten()[:-1].max() < 1e-6


def test_what_is_expected_lies_between_the_truth_and_the_difference_of_enlargements() -> None:
    flat = torch.full((3, 32, 32), 0.5)
    for trust, wanted in ((0.0, [0.01, 0.04]), (1.0, [0.01 + 0.04, 0.04]), (0.5, [0.03, 0.04])):
        sample = observe.leave(
            [constant(0.1), constant(0.2)], flat[:, ::4, ::4], flat, Fraction(4), trust=trust
        )  # type: ignore[list-item]
        assert sample.expected.mean(dim=(1, 2)).tolist() == pytest.approx(wanted, rel=1e-3)
        assert sample.errors.mean(dim=(1, 2)).tolist() == pytest.approx([0.01, 0.04], rel=1e-3)


@pytest.mark.parametrize(
    ("scale", "size"),
    [
        (Fraction(4), (96, 104)),
        (Fraction(8, 5), (96, 104)),
        pytest.param(Fraction(137, 100), (137, 137), marks=pytest.mark.slow),
    ],
)
def test_every_variation_keeps_the_scale(scale: Fraction, size: tuple[int, int]) -> None:
    rng, hr, dirty = np.random.default_rng(0), torch.rand(3, *size), 0
    for _ in range(60):
        small, large, clean = observe.vary(hr, scale, rng)
        dirty += not clean
        assert tuple(large.shape[-2:]) == (small.shape[-2] * scale, small.shape[-1] * scale)
        assert small.shape[0] == large.shape[0] == 3
        assert 0 <= small.min() <= small.max() <= 1
        assert not clean or small == pytest.approx(shrink(large, scale).clamp(0, 1), abs=1e-6)
    assert 0 < dirty < 20
