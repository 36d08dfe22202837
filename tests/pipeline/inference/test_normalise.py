"""Values to RGB triples of 0..1 and back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierscale.pipeline.inference import normalise
from tierscale.pipeline.plan.value_range import ValueRange

EIGHT = ValueRange(0, 255, 0, 255)


@pytest.mark.parametrize(
    ("dtype", "value_range"),
    [
        (np.uint8, EIGHT),
        (np.uint16, ValueRange.measured([(37, 4011)], None)),
        (np.uint16, ValueRange(0, 65535, 0, 65535)),
    ],
)
def test_every_value_comes_back(dtype, value_range):
    values = np.arange(int(value_range.low), int(value_range.high) + 1).astype(dtype)[None, None]
    np.testing.assert_array_equal(
        normalise.from_unit(normalise.to_unit(values, value_range), value_range, np.dtype(dtype)),
        values,
    )


@given(st.floats(-(2.0**99), 2.0**99, width=32), st.floats(-(2.0**99), 2.0**99, width=32))
def test_the_ends_of_a_float_range_come_back_exactly(low, high):
    low, high = min(low, high), max(low, high)
    pixels = np.array([[[low, high]]], np.float32)
    value_range = ValueRange.measured([(low, high)], None)
    back = normalise.from_unit(
        normalise.to_unit(pixels, value_range), value_range, np.dtype(np.float32)
    )
    if low == high:
        assert (back == low).all()
    else:
        np.testing.assert_allclose(back, pixels, rtol=1e-6, atol=abs(high - low) * 1e-6)
        assert back[0, 0, 0] == np.float32(low)


def test_integers_round_and_stay_in_range():
    unit = np.array([[[-0.1, 0.4999 / 255, 0.5001 / 255, 1.2]]], np.float32)
    assert normalise.from_unit(unit, EIGHT, np.dtype(np.uint8)).ravel().tolist() == [0, 0, 1, 255]


def test_missing_pixels_are_filled_from_their_neighbours_whatever_the_window():
    rng = np.random.default_rng(0)
    unit = rng.random((1, 40, 40)).astype(np.float32)
    mask = np.zeros((40, 40), bool)
    mask[12:25, 14:30] = True
    whole = normalise._fill(unit, mask)
    part = normalise._fill(unit[:, 5:35, 5:38], mask[5:35, 5:38])
    inner = slice(normalise.FILL_REACH, -normalise.FILL_REACH)
    np.testing.assert_array_equal(part[:, inner, inner], whole[:, 5:35, 5:38][:, inner, inner])
    assert whole[0, 18, 20] == 0.5 and 0 < whole[0, 12, 20] < 1


def test_no_data_is_where_all_channels_say_so():
    pixels = np.zeros((3, 2, 2), np.uint8)
    pixels[0, 0, 0] = 7
    assert normalise.missing(pixels, 0.0).tolist() == [[False, True], [True, True]]
    assert normalise.missing(pixels, 9.0) is None
    floats = np.full((1, 1, 2), np.nan, np.float32)
    assert normalise.missing(floats, float("nan")).all()


def test_greys_are_fed_as_equal_triples_and_averaged():
    unit = np.random.default_rng(1).random((2, 4, 5)).astype(np.float32)
    triples = normalise.rgb_batch(unit, "channels")
    assert triples.shape == (2, 3, 4, 5) and (triples[:, 0] == triples[:, 2]).all()
    np.testing.assert_allclose(normalise.merge(triples, "channels"), unit, rtol=1e-6)


def test_premultiplied_colours_are_divided_by_alpha():
    pixels = np.array([0.2, 0.1, 0.0, 0.5], np.float32).reshape(4, 1, 1)
    colours = {
        alpha: normalise.rgb_batch(
            normalise.straight_unit(pixels, ValueRange(0, 1, 0, 1), alpha), "rgba"
        )
        for alpha in ("premultiplied", "straight")
    }
    np.testing.assert_allclose(colours["premultiplied"][0, :, 0, 0], [0.4, 0.2, 0.0], rtol=1e-6)
    np.testing.assert_allclose(colours["straight"][0, :, 0, 0], [0.2, 0.1, 0.0], rtol=1e-6)


@pytest.mark.parametrize("alpha", ["straight", "premultiplied"])
def test_what_alpha_hides_is_filled_from_what_is_seen(alpha):
    pixels = np.full((4, 7, 20), 255, np.uint8)
    pixels[:, :, 8:] = 0
    pixels[:3, 3, 12] = 77
    unit = normalise.straight_unit(pixels, ValueRange(0, 255, 0, 255), alpha)
    assert (unit[:3, :, :12] == 1).all(), "white goes on for the reach of filling"
    assert (unit[:3, :, 12:] == 0.5).all() and (unit[3] == pixels[3] / 255).all()
    deep = normalise.deep_inside(normalise.hidden(pixels))
    assert deep[:, 12:].all() and not deep[:, :12].any()


def test_flat_areas_at_the_ends_are_found_away_from_their_edges():
    unit = np.full((1, 9, 9), 0.5, np.float32)
    unit[0, 1:8, 1:8] = 1.0
    ((mask, value),) = normalise.ends(unit)
    assert value == 1.0 and mask.sum() == 9 and mask[0, 3:6, 3:6].all()


def test_nearest_pixels_hold_the_centres():
    assert normalise.nearest(0, 8, 4, 1, 2).tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert normalise.nearest(0, 5, 5, 2, 2).tolist() == [0, 0, 1, 1, 1]
