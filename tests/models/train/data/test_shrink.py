"""Shrinking as the protocol does it."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tierscale.models.train.data import shrink as degrade
from tierscale.models.train.data.shrink import band, bands, shrink, shrunk_length

pytestmark = pytest.mark.usefixtures("one_thread")


CPU = torch.device("cpu")


@given(length=st.integers(1, 200), p=st.integers(1, 40), q=st.integers(1, 10))
@settings(max_examples=60, deadline=None)
def test_shares_of_a_shrunk_pixel_add_up_to_one(length: int, p: int, q: int) -> None:
    scale = max(Fraction(1), Fraction(p, q))
    ((start, stop, weights),) = bands(length, scale, CPU)
    assert 0 <= start < stop <= length
    assert weights.shape == (shrunk_length(length, scale), stop - start)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(len(weights), dtype=torch.float64))


def test_shrinking_keeps_flat_areas_and_is_symmetric() -> None:
    assert torch.allclose(shrink(torch.full((3, 17, 20), 0.3), 4), torch.tensor(0.3))
    x = torch.rand(1, 24, 36)
    torch.testing.assert_close(shrink(x, 4).flip(1, 2), shrink(x.flip(1, 2), 4))
    torch.testing.assert_close(shrink(x, 1), x)
    with pytest.raises(ValueError, match="1/2"):
        shrink(x, Fraction(1, 2))


def test_halving_weighs_eight_pixels() -> None:
    # The cubic of twice the width at distances 0.25, 0.75, 1.25, 1.75: the taps that imresize uses
    # for a factor of 0.5.
    start, weights = band(16, Fraction(2), 4, 5)
    near = [0.43359375, 0.11328125, -0.03515625, -0.01171875]
    assert weights[0, 5 - start : 13 - start].tolist() == pytest.approx([*near[::-1], *near])


@pytest.mark.parametrize("scale", [1, 2, 4, Fraction(27, 10), 100, Fraction(1300, 7)])
def test_bands_shrink_as_one_matrix_does(
    scale: Fraction | int, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [torch.rand(shape) for shape in ((3, 7, 1301), (2, 1, 700, 530), (1, 513, 1))]
    made = [shrink(image, scale) for image in images]
    monkeypatch.setattr(degrade, "SMALL", 10**9)
    for image, mine in zip(images, made, strict=True):
        torch.testing.assert_close(mine, shrink(image, scale), rtol=0, atol=1e-6)


def test_weights_of_a_long_side_take_memory_in_proportion_to_it() -> None:
    sizes = [
        sum(weights.numel() for _, _, weights in bands(length, Fraction(4), CPU))
        for length in (20_000, 40_000)
    ]
    assert sizes[1] < 2.1 * sizes[0] < 2.1 * 80 * 20_000
    assert band.cache_info().maxsize <= 64
