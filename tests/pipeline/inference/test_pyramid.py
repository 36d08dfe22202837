"""Smaller levels hold means of what is valid, and colours of what can be seen."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tierscale.pipeline.inference.pyramid import Averaging, half


def halved(pixels, averaging=None):
    return half((1, 1), (0, 0), lambda shard: pixels, averaging)


@given(arrays.arrays("u2", st.tuples(st.just(2), st.integers(1, 40), st.integers(1, 40))))
def test_where_all_is_valid_a_pixel_is_the_plain_mean(pixels):
    plain = halved(pixels)
    np.testing.assert_array_equal(halved(pixels, Averaging()), plain)
    odd = np.pad(pixels, ((0, 0), (0, pixels.shape[1] % 2), (0, pixels.shape[2] % 2)), mode="edge")
    means = odd.astype(float).reshape(2, odd.shape[1] // 2, 2, odd.shape[2] // 2, 2).mean((2, 4))
    np.testing.assert_array_equal(plain, np.rint(means).astype("u2"))
    opaque = np.concatenate([pixels, np.full_like(pixels[:1], 65535)])
    np.testing.assert_array_equal(halved(opaque, Averaging(alpha=True))[:2], plain)


@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_clear_pixels_lend_no_colour(dtype):
    top = np.iinfo(dtype).max
    pixels = np.zeros((4, 2, 4), dtype)
    pixels[:, :, 0] = top
    pixels[:3, :, 2:] = 7
    level = halved(pixels, Averaging(alpha=True))
    assert level[:, 0, 0].tolist() == [top, top, top, round(top / 2)]
    assert level[:, 0, 1].tolist() == [7, 7, 7, 0]
    assert halved(pixels)[0, 0, 0] == round(top / 2), "earlier versions"


@pytest.mark.parametrize("nodata", [-9999.0, np.nan])
def test_missing_values_are_left_out(nodata):
    pixels = np.full((1, 4, 4), 30.0, np.float32)
    pixels[0, 1:, 1:] = nodata
    pixels[0, 0, 1] = 60
    level = halved(pixels, Averaging(nodata=nodata))
    np.testing.assert_array_equal(level[0], [[40, 30], [30, nodata]])


def test_a_black_pixel_is_missing_only_where_all_its_colours_are():
    pixels = np.array([[[0, 10], [10, 10]], [[0, 20], [20, 0]], [[0, 30], [30, 30]]], "u1")
    rgb = halved(pixels, Averaging(nodata=0, together=True))
    assert rgb.ravel().tolist() == [10, 13, 30]
    bands = halved(pixels, Averaging(nodata=0))
    assert bands.ravel().tolist() == [10, 20, 30]
