"""Shrinking as in training, and errors tile by tile."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tierscale.models.fidelity import (
    CAP,
    RIM,
    Bound,
    bound_of,
    decibels,
    shrunk,
    tile_errors,
)
from tierscale.models.train.data.shrink import shrink

SCALES = [Fraction(scale) for scale in ("1", "11/10", "3/2", "2", "5/2", "27/10", "3", "4", "8")]


def random(*shape):
    return np.random.default_rng(sum(shape)).integers(0, 256, shape).astype(np.uint8)


@pytest.mark.parametrize("scale", SCALES, ids=str)
@given(height=st.integers(5, 90), width=st.integers(5, 90))
def test_away_from_the_rim_it_is_the_shrinking_of_training(scale, height, width):
    # An output is as long as its source times the scale, rounded.
    pixels = random(round(height * scale), round(width * scale))
    wanted = shrink(torch.from_numpy(pixels).float(), scale)[:height, :width]
    found = shrunk(pixels, scale, (height, width))
    inner = wanted[RIM : height - RIM, RIM : width - RIM]
    assert found.shape == tuple(inner.shape) and found.dtype == np.float32
    np.testing.assert_allclose(found, inner.numpy(), atol=1e-4)


def test_what_lies_beyond_a_shard_does_not_matter():
    """A part of a picture gives what the whole one gives there."""
    whole = random(400, 300)
    part = shrunk(whole[100:300, 50:250], Fraction(5, 2), (80, 80))
    np.testing.assert_allclose(
        part, shrunk(whole, Fraction(5, 2), (160, 120))[40:116, 20:96], atol=1e-4
    )


def test_pixels_are_brought_to_floats_as_they_are_asked_to():
    pixels = random(80, 80).astype(np.float64) + 1e9

    def less(target, values):
        target[...] = values - 1e9

    found = shrunk(pixels, Fraction(4), (20, 20), less)
    np.testing.assert_allclose(found, shrunk(random(80, 80), Fraction(4), (20, 20)), atol=1e-4)


def test_decibels_are_capped_and_nothing_stays_nothing():
    found = decibels(np.array([0.0, 1e-30, 1e-4, 0.25, math.nan]))
    np.testing.assert_allclose(found, [CAP, CAP, 40.0, 6.0206, math.nan], atol=1e-4)


def whole(*shape):
    return ([slice(0, shape[0])], [slice(0, shape[1])])


def test_errors_are_those_of_the_valid_pixels_of_each_tile():
    difference, valid = np.zeros((8, 12), np.float32), np.ones((8, 12), bool)
    difference[:, 6:] = 0.5
    difference[0, 0] = 100.0
    valid[0, 0] = False
    valid[4:, :6] = False
    tiles = ([slice(0, 4), slice(4, 8), slice(8, 8)], [slice(0, 6), slice(6, 12)])
    found = tile_errors(difference, valid, tiles)
    np.testing.assert_array_equal(found, [[0.0, 0.25], [math.nan, 0.25], [math.nan, math.nan]])


def test_averages_leave_grain_out_and_keep_what_is_brighter():
    grain = np.random.default_rng(0).normal(0, 0.1, (64, 64)).astype(np.float32)
    valid = np.ones((64, 64), bool)
    plain, averaged = (tile_errors(grain, valid, whole(64, 64), block)[0, 0] for block in (1, 8))
    assert plain == pytest.approx(0.01, rel=0.1) and averaged == pytest.approx(0.01 / 64, rel=0.4)
    brighter = tile_errors(grain + np.float32(0.2), valid, whole(64, 64), 8)[0, 0]
    assert brighter == pytest.approx(0.04 + averaged, rel=0.05)


def test_averages_are_of_valid_pixels_alone():
    """A square of which half is left out is the mean of the other half, and counts half."""
    difference, valid = np.zeros((8, 16), np.float32), np.ones((8, 16), bool)
    difference[:, :4], difference[:, 4:8] = 0.3, 1e6
    valid[:, 4:8] = False
    found = tile_errors(difference, valid, whole(8, 16), 8)[0, 0]
    assert found == pytest.approx(0.09 * 32 / (32 + 64))
    valid[:] = False
    assert math.isnan(tile_errors(difference, valid, whole(8, 16), 8)[0, 0])


@pytest.mark.parametrize(
    ("card", "bound"),
    [
        ({"fidelity": {"bound": 37.5, "block": 8}}, Bound(37.5, 8)),
        ({"fidelity": {"bound": 30}}, Bound(30.0, 1)),
        ({"fidelity": {"bound": None}}, None),
        ({"fidelity": 3}, None),
        ({}, None),
    ],
)
def test_a_bound_stands_on_the_card(card, bound):
    assert bound_of(card) == bound
