"""Small tiles that overlap."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tierscale.models.contract.upscaler import Placement
from tierscale.models.runtime.patches import SIDE, STEP, blend_weights, starts

pytestmark = pytest.mark.usefixtures("one_thread")


def whole(x: Tensor, scale: int = 2) -> Placement:
    return Placement(Fraction(scale), (x.shape[-2], x.shape[-1]), ((0, 0),) * len(x))


@settings(deadline=None)
@given(whole=st.integers(1, 300), origin=st.integers(0, 299), length=st.integers(1, 300))
def test_tiles_of_a_window_are_tiles_of_the_image_and_cover_all_but_its_context(
    whole: int, origin: int, length: int
) -> None:
    origin, stop = min(origin, whole - 1), min(whole, origin + length)
    here = {origin + start for start in starts(origin, stop - origin, whole, SIDE, STEP)}
    assert here <= set(starts(0, whole, whole, SIDE, STEP))
    seen = np.zeros(whole, bool)
    for start in here:
        seen[start : start + SIDE] = True
    # What lies at least the reach inside the window, or at the image's own edge, is in all of its
    # tiles.
    first = 0 if origin == 0 else origin + SIDE - 1
    last = whole if stop == whole else max(0, stop - SIDE + 1)
    assert seen[first:last].all()


@settings(deadline=None)
@given(whole=st.integers(1, 200), scale=st.sampled_from([2, 3, 4]))
def test_shares_of_tiles_are_never_negative_and_add_up_to_one(whole: int, scale: int) -> None:
    first, side = starts(0, whole, whole, SIDE, STEP), min(SIDE, whole)
    shares = blend_weights(first, side, whole, scale)
    assert shares.min() >= 0
    torch.testing.assert_close(shares.sum(dim=0), torch.ones(whole * scale))
    for share, start in zip(shares, first, strict=True):
        outside = torch.ones(whole * scale, dtype=torch.bool)
        outside[start * scale : (start + side) * scale] = False
        assert not share[outside].any()


def test_sixty_pixels_are_two_tiles_and_the_last_one_slides_in() -> None:
    assert starts(0, 60, 60, 32, 28) == [0, 28]
    assert starts(0, 61, 61, 32, 28) == [0, 28, 29]
    assert starts(20, 45, 100, 32, 28) == [8]
    assert starts(0, 10, 10, 32, 28) == [0]
