"""Laws of the geometry, at any size, tile and scale."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierscale.models.contract.upscaler import hr_edge, hr_length
from tierscale.pipeline.geometry.grid import (
    Grid,
    Rect,
    Span,
    Surroundings,
    cores,
    quadtree,
    shard_tiles,
    tile_length,
)

SCALES = [Fraction(4), Fraction(3), Fraction(2), Fraction(3, 2), Fraction(27, 10), Fraction(1)]
grids = st.builds(
    lambda height, width, scale, tile: Grid((height, width), scale, tile_length(tile, scale)),
    st.integers(1, 700),
    st.integers(1, 700),
    st.sampled_from(SCALES),
    st.integers(8, 128),
)


# What CARN reads around.
CARN = Surroundings(21)


@given(grids)
def test_cores_cover_the_output_exactly_once(grid):
    rows, columns = grid.tiles
    for axis, count in enumerate((rows, columns)):
        edges = []
        for index in range(count):
            hr = grid.hr(grid.core(*((index, 0) if axis == 0 else (0, index))))
            span = hr.y if axis == 0 else hr.x
            edges.append((span.start, span.stop))
        assert edges[0][0] == 0 and edges[-1][1] == grid.hr_size[axis]
        assert all(before[1] == after[0] for before, after in itertools.pairwise(edges))
        assert all(stop > start or grid.scale < 1 for start, stop in edges)


@given(grids)
def test_shards_cover_the_tiles_exactly_once(grid):
    seen = np.zeros(grid.tiles, int)
    for shard in grid.all_shards():
        rows, columns = grid.shard_block(shard)
        seen[rows.start : rows.stop, columns.start : columns.stop] += 1
    assert (seen == 1).all()


@given(grids)
def test_inner_shards_are_whole_in_output_pixels(grid):
    tall, wide = grid.hr_shard
    for y, x in grid.all_shards():
        hr = grid.hr(grid.shard_core((y, x)))
        assert hr.y.start == y * tall and hr.x.start == x * wide
        assert hr.y.length <= tall and hr.x.length <= wide


@given(grids, st.integers(0, 40), st.integers(0, 8), st.data())
def test_a_window_holds_what_is_needed_and_stays_inside(grid, reach, blend, data):
    row, column = (data.draw(st.integers(0, count - 1)) for count in grid.tiles)
    core = grid.core(row, column)
    need = Rect(core.y.grown(blend, grid.size[0]), core.x.grown(blend, grid.size[1]))
    window = grid.window(need, Surroundings(reach), blend)
    for got, wanted, length in zip((window.y, window.x), (need.y, need.x), grid.size, strict=True):
        assert got.start >= 0 and got.stop <= length
        context = wanted.grown(reach, length)
        assert got.start <= context.start and got.stop >= context.stop


def test_windows_slide_inwards_at_the_edge_and_come_in_few_shapes():
    grid = Grid((1000, 1000), Fraction(4), 128)
    shapes = set()
    for row in range(grid.tiles[0]):
        for column in range(grid.tiles[1]):
            core = grid.core(row, column)
            window = grid.window(Rect(core.y.grown(4, 1000), core.x.grown(4, 1000)), CARN, 4)
            shapes.add((window.y.length, window.x.length))
    assert shapes == {
        (tall, wide) for tall in (178, 146) for wide in (178, 146)
    }  # the ragged last tiles of 104 need less
    assert grid.window(grid.core(7, 7), CARN, 4).y == Span(854, 1000)


@given(grids, st.integers(0, 40), st.integers(0, 8), st.sampled_from([2, 8, 64]), st.data())
def test_windows_begin_at_multiples_and_end_there_or_with_the_image(
    grid, reach, blend, multiple, data
):
    core = grid.core(*(data.draw(st.integers(0, count - 1)) for count in grid.tiles))
    window = grid.window(core, Surroundings(reach, multiple), blend)
    pairs = zip((window.y, window.x), (core.y, core.x), grid.size, strict=True)
    for got, wanted, length in pairs:
        context = wanted.grown(reach, length)
        assert 0 <= got.start <= context.start and context.stop <= got.stop <= length
        assert got.start % multiple == 0 and (got.stop % multiple == 0 or got.stop == length)


@given(st.integers(1, 6000))
def test_shards_stay_small_and_large_images_have_the_smallest(length):
    assert shard_tiles(length, 128) in (4, 5, 6)
    if length % 128 == 0 and length >= 1024:
        assert shard_tiles(length, 128) == 4


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**31))
def test_the_quadtree_covers_each_tile_once_with_one_tier(rows, columns, seed):
    routes = np.random.default_rng(seed).integers(0, 3, (rows, columns))
    seen = np.zeros((rows, columns), int)
    for part_rows, part_columns in quadtree(routes, Span(0, rows), Span(0, columns)):
        part = routes[part_rows.start : part_rows.stop, part_columns.start : part_columns.stop]
        assert len(np.unique(part)) == 1
        seen[part_rows.start : part_rows.stop, part_columns.start : part_columns.stop] += 1
    assert (seen == 1).all()


@given(st.integers(1, 100_000), st.sampled_from(SCALES))
def test_edges_rise_from_nothing_to_the_whole_length(length, scale):
    assert hr_edge(0, length, scale) == 0
    assert hr_edge(length, length, scale) == hr_length(length, scale)
    assert hr_edge(length // 2, length, scale) <= hr_edge(length // 2 + 1, length, scale)


def test_ten_pixels_in_fours():
    assert cores(10, 4) == [Span(0, 4), Span(4, 8), Span(8, 10)]


def test_a_tile_of_128_at_2_7_is_130_pixels():
    assert tile_length(128, Fraction(27, 10)) == 130
    with pytest.raises(ValueError, match="not a multiple of 10"):
        Grid((100, 100), Fraction(27, 10), 128)
