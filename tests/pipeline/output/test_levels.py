"""Levels halve until both sides are small, and shards cover each of them once."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierscale.pipeline.output.levels import (
    SMALLEST_LEVEL,
    StoreLayout,
    chunk_side,
    level_sizes,
    shard_keys,
)

SIZES = st.tuples(st.integers(1, 200_000), st.integers(1, 200_000))


@given(size=SIZES)
def test_each_level_is_half_the_one_before_and_the_last_one_is_small(size):
    sizes = level_sizes(size)
    assert sizes[0] == size and max(sizes[-1]) <= SMALLEST_LEVEL
    for (height, width), following in pairwise(sizes):
        assert max(height, width) > SMALLEST_LEVEL
        assert following == (-(-height // 2), -(-width // 2))


def test_an_image_of_two_thousand_pixels_has_two_levels():
    assert level_sizes((8, 2000)) == [(8, 2000), (4, 1000)]


@given(
    size=st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
    shard=st.tuples(st.integers(300, 2000), st.integers(300, 2000)),
)
def test_shards_cover_every_level_once(size, shard):
    covered = np.zeros(len(level_sizes(size)), int)
    for level, y, x in shard_keys(size, shard):
        height, width = level_sizes(size)[level]
        rows = min((y + 1) * shard[0], height) - y * shard[0]
        columns = min((x + 1) * shard[1], width) - x * shard[1]
        assert rows > 0 and columns > 0
        covered[level] += rows * columns
    assert covered.tolist() == [height * width for height, width in level_sizes(size)]


@pytest.mark.parametrize("colour", ["rgb", "channels", "grey"])
@pytest.mark.parametrize(
    ("shard", "side"),
    [
        ((1024, 1024), 512),  # x2
        ((1536, 1536), 512),  # x3
        ((2048, 512), 512),  # x4
        ((1280, 1280), 256),  # x5/2
        ((1404, 1404), 468),  # x2.7: 4 tiles of 351
        ((32, 96), 32),
        ((36, 36), 36),
        ((521, 521), 521),
    ],
)
def test_chunks_are_squares_of_one_channel(colour, shard, side):
    layout = StoreLayout((3, 4000, 5000), np.dtype("u2"), colour, shard)
    assert layout.chunk == (1, side, side)


@given(st.integers(1, 3000), st.integers(1, 3000))
def test_chunks_divide_their_shard(height, width):
    side = chunk_side((height, width))
    assert height % side == width % side == 0
    assert side <= 512 or all(math.gcd(height, width) % part for part in range(64, 513))
