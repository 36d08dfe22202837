"""Laws of the fade between tiers: weights add up to one, and no step is left at a border."""

from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.scenes import BLENDS, scenes
from tierscale.pipeline.geometry.grid import Grid, Surroundings
from tierscale.pipeline.geometry.layout import lay_out
from tierscale.pipeline.inference.blend import Piece, blend_weights, stitch

AROUND = tuple(map(Surroundings, (2, 5, 9, 11)))


@given(scenes(), BLENDS, st.data())
def test_weights_are_never_negative_and_add_up_to_one(scene, blend, data):
    grid, routes = scene
    tile = tuple(data.draw(st.integers(0, count - 1)) for count in grid.tiles)
    weights = np.stack([blend_weights(grid, routes, tile, tier, blend) for tier in range(4)])
    assert weights.min() >= 0
    np.testing.assert_allclose(weights.sum(axis=0), 1, atol=1e-6)


@settings(max_examples=60)
@given(scenes(), BLENDS)
def test_pieces_of_ones_stitch_to_ones_everywhere(scene, blend):
    """Whatever the routes, every output pixel gets weights that add up to one."""
    grid, routes = scene
    for shard in grid.all_shards():
        pieces = []
        for work in lay_out(grid, routes, shard, AROUND, blend):
            hr = grid.hr(work.valid)
            ones = np.ones((1, hr.y.length, hr.x.length), np.float32)
            pieces.append(Piece(work, ones, 0.0, 0.0, 1))
        np.testing.assert_allclose(stitch(grid, routes, shard, pieces, blend), 1, atol=1e-6)


@settings(max_examples=60)
@given(scenes(), BLENDS)
def test_both_sides_of_every_border_agree_where_tiers_meet(scene, blend):
    """A tier's weight just inside a dearer tile is nearly one at its border: no step is seen."""
    grid, routes = scene
    if blend < 2 or grid.scale < 2:
        return
    for row in range(grid.tiles[0]):
        for column in range(1, grid.tiles[1]):
            here, left = routes[row, column], routes[row, column - 1]
            core = grid.core(row, column)
            if here > left and core.x.length >= 2 * blend:
                weights = blend_weights(grid, routes, (row, column), int(here), blend)
                assert weights[:, 0].max() <= 0.5 / float(grid.scale) / blend * 2 + 1e-6


def test_the_fade_rises_in_a_straight_line_over_the_blend():
    grid = Grid((64, 64), Fraction(4), 32)
    weights = blend_weights(grid, np.array([[0, 1], [0, 1]]), (0, 1), 1, 4)
    np.testing.assert_allclose(weights[0, :17], [*((np.arange(16) + 0.5) / 16), 1])
