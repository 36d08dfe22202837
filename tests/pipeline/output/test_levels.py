"""Levels halve until both sides are small, and shards cover each of them once."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierscale.pipeline.output.levels import (
    CHUNK_BYTES,
    SMALLEST_LEVEL,
    StoreLayout,
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


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
@pytest.mark.parametrize("colour", ["rgb", "channels"])
@pytest.mark.parametrize("tiles", [(4, 4), (5, 6), (1, 3)])
def test_a_chunk_holds_whole_tiles_and_divides_the_shard(dtype, colour, tiles):
    shard = (512 * tiles[0], 512 * tiles[1])
    layout = StoreLayout((3, 4000, 5000), np.dtype(dtype), colour, shard, tiles)
    channels, height, width = layout.chunk
    assert height % 512 == width % 512 == 0 and shard[0] % height == shard[1] % width == 0
    assert channels == (1 if colour == "channels" else 3)
    size = channels * height * width * layout.dtype.itemsize
    assert size >= CHUNK_BYTES or (height, width) == shard
