"""The heads of any scale.

Places, the four corners, attention in blocks, and the nearest feature.
"""

from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from tierscale.models.adaptive.anysr import srno
from tierscale.models.adaptive.anysr.liif import Liif
from tierscale.models.adaptive.anysr.srno import Srno, centres, corners, places
from tierscale.models.runtime.counting import executed
from tierscale.models.runtime.nearest import Axis

pytestmark = pytest.mark.usefixtures("one_thread")

SCALES = st.sampled_from(
    [Fraction(2), Fraction(3), Fraction(4), Fraction(27, 10), Fraction(11, 10), Fraction(7, 2)]
)


def whole(length: int, count: int) -> Axis:
    return Axis(Fraction(count, length), 0, count, 0, length)


@settings(deadline=None, max_examples=40)
@given(scale=SCALES, tiles=st.integers(1, 6), start=st.integers(0, 5))
def test_places_of_a_window_are_those_of_the_whole_image(
    scale: Fraction, tiles: int, start: int
) -> None:
    tile = 10 * scale.denominator
    length, origin = tiles * tile, start * tile
    hr = 10 * scale.numerator
    image = Axis(scale, 0, 12 * hr, 0, 12 * tile)
    window = Axis(scale, start * hr, tiles * hr, origin, length)
    there = (places(image).double() + 1) / 2 * image.length
    here = (places(window).double() + 1) / 2 * length + origin
    torch.testing.assert_close(here, there[start * hr : (start + tiles) * hr], atol=1e-4, rtol=0)


@settings(deadline=None, max_examples=40)
@given(scale=SCALES, offset=st.integers(0, 9), length=st.integers(4, 40))
def test_places_keep_the_phase_of_the_grid_where_a_window_begins_between_output_pixels(
    scale: Fraction, offset: int, length: int
) -> None:
    first = offset * scale.numerator // scale.denominator
    count = (offset + length) * scale.numerator // scale.denominator - first
    at = (places(Axis(scale, first, count, offset, length)).double() + 1) / 2 * length + offset
    wanted = (torch.arange(first, first + count).double() + 0.5) / float(scale)
    torch.testing.assert_close(at, wanted, atol=1e-4, rtol=0)


def test_four_centres() -> None:
    assert centres(4).tolist() == [-0.75, -0.25, 0.25, 0.75]


@pytest.mark.parametrize(("length", "count"), [(5, 10), (7, 19), (30, 120), (9, 27), (16, 17)])
def test_corners_are_what_grid_sample_takes(length: int, count: int) -> None:
    rows, off = corners(whole(length, count))
    assert rows.min() >= 0 and rows.max() < length
    numbers = torch.arange(length).float().view(1, 1, length, 1)
    for side, sign in enumerate((-1, 1)):
        at = (places(whole(length, count)) + sign / length + 1e-6).clamp(-1 + 1e-6, 1 - 1e-6)
        grid = torch.stack([torch.zeros_like(at), at], dim=1).view(1, count, 1, 2)
        wanted = F.grid_sample(numbers, grid, mode="nearest", align_corners=False).flatten()
        assert torch.equal(rows[side].float(), wanted)
        torch.testing.assert_close(
            off[side], (places(whole(length, count)) - centres(length)[rows[side]]) * length
        )


def test_blocks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network, features = Srno(6, 16, 4), torch.randn(2, 6, 9, 7)
    axes = (whole(9, 25), whole(7, 28))
    monkeypatch.setattr(srno, "QUERIES", 10_000)
    at_once = network(features, *axes)
    monkeypatch.setattr(srno, "QUERIES", 60)
    torch.testing.assert_close(network(features, *axes), at_once, atol=1e-5, rtol=1e-5)


def test_attention_mixes_all_of_a_window_and_the_size_of_a_pixel_matters() -> None:
    torch.manual_seed(0)
    network, features = Srno(6, 16, 4), torch.randn(1, 6, 9, 7)
    axes = (whole(9, 18), whole(7, 14))
    before, other = network(features, *axes), features.clone()
    other[..., 0, 0] += 1
    assert (network(other, *axes) - before)[..., -1, -1].abs().max() > 1e-6
    assert (network(features, *axes, stretch=2.0) - before).abs().max() > 1e-6


def test_the_nearest_feature_in_blocks_is_the_trained_form() -> None:
    torch.manual_seed(0)
    network, features = Liif(6, (16, 12)), torch.randn(1, 6, 9, 40)
    for axes in (
        (whole(9, 27), whole(40, 120)),
        (Axis(Fraction(27, 10), 10, 25, 4, 9), Axis(Fraction(27, 10), 0, 108, 0, 40)),
    ):
        with torch.inference_mode():
            torch.testing.assert_close(
                network.run(features, *axes), network(features, *axes), atol=1e-5, rtol=1e-5
            )


@pytest.mark.parametrize("head", [Srno(6, 16, 4), Liif(6, (16, 12))], ids=["srno", "liif"])
def test_the_stated_cost_is_the_executed_one(head: Srno | Liif) -> None:
    features, axes = torch.randn(1, 6, 9, 7), (whole(9, 25), whole(7, 28))
    assert head.cost(63, 700) == executed(lambda: head.run(features, *axes))


def test_a_width_that_heads_cannot_share_is_refused() -> None:
    with pytest.raises(ValueError, match="width of 20 cannot be shared by 8 heads"):
        Srno(6, 20, 8)
