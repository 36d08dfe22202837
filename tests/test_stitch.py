"""Laws of the fade between tiers, and of what a shard computes."""

from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tierscale.pipeline.geometry.grid import Grid, tile_length
from tierscale.pipeline.geometry.layout import Piece, bands, lay_out, share, stitch

SCALES = [Fraction(4), Fraction(2), Fraction(3, 2), Fraction(27, 10)]


@st.composite
def scenes(draw):
    scale = draw(st.sampled_from(SCALES))
    tile = tile_length(draw(st.integers(8, 24)), scale)
    grid = Grid((draw(st.integers(1, 130)), draw(st.integers(1, 130))), scale, tile)
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    return grid, rng.integers(0, draw(st.integers(1, 4)), grid.tiles), draw(st.integers(0, 4))


@given(scenes(), st.data())
def test_shares_are_never_negative_and_add_up_to_one(scene, data):
    grid, routes, blend = scene
    tile = tuple(data.draw(st.integers(0, count - 1)) for count in grid.tiles)
    shares = np.stack([share(grid, routes, tile, tier, blend) for tier in range(4)])
    assert shares.min() >= 0
    np.testing.assert_allclose(shares.sum(axis=0), 1, atol=1e-6)


@settings(max_examples=60)
@given(scenes())
def test_pieces_of_ones_stitch_to_ones_everywhere(scene):
    """Whatever the routes, every output pixel gets shares that add up to one, from windows that
    reach far enough.
    """
    grid, routes, blend = scene
    reaches = (2, 5, 9, 11)
    for shard in grid.all_shards():
        pieces = []
        for work in lay_out(grid, routes, shard, reaches, blend):
            assert (
                work.window.y.start <= work.keep.y.start and work.window.x.stop >= work.keep.x.stop
            )
            hr = grid.hr(work.keep)
            pieces.append(
                Piece(work, np.ones((1, hr.y.length, hr.x.length), np.float32), 0.0, 0.0, 1)
            )
        np.testing.assert_allclose(stitch(grid, routes, shard, pieces, 1, blend), 1, atol=1e-6)


@settings(max_examples=60)
@given(scenes())
def test_both_sides_of_every_border_agree_where_tiers_meet(scene):
    """A tier's share just inside a dearer tile is nearly one at its border: no step is left to
    see.
    """
    grid, routes, blend = scene
    if blend < 2 or grid.scale < 2:
        return
    for row in range(grid.tiles[0]):
        for column in range(1, grid.tiles[1]):
            here, left = routes[row, column], routes[row, column - 1]
            core = grid.core(row, column)
            if here > left and core.x.length >= 2 * blend:
                weights = share(grid, routes, (row, column), int(here), blend)
                assert weights[:, 0].max() <= 0.5 / float(grid.scale) / blend * 2 + 1e-6


def test_only_the_dearer_tile_fades():
    grid = Grid((64, 64), Fraction(4), 32)
    routes = np.array([[0, 1], [0, 1]])
    assert bands(grid, routes, (0, 0), 4) == []
    assert {tier for tier, _, _ in bands(grid, routes, (0, 1), 4)} == {0}
    weights = share(grid, routes, (0, 1), 1, 4)
    np.testing.assert_allclose(weights[0, :17], [*((np.arange(16) + 0.5) / 16), 1])


def test_extra_work_along_mixed_edges_is_small():
    """A third of the edges mixed costs a shard of 4 by 4 tiles less than five per cent more."""
    grid = Grid((128 * 12, 128 * 12), Fraction(4), 128)
    rng = np.random.default_rng(0)
    reaches, costs = (2, 8, 21), (240.0, 24_000.0, 570_000.0)
    for _ in range(20):
        base = rng.integers(0, 3, (3, 3)).repeat(4, 0).repeat(4, 1)
        works = [
            work for shard in grid.all_shards() for work in lay_out(grid, base, shard, reaches, 4)
        ]
        inside = sum(
            costs[w.tier] * w.window.area for w in works if all(base[t] == w.tier for t in w.owner)
        )
        strips = sum(
            costs[w.tier] * w.window.area
            for w in works
            if not all(base[t] == w.tier for t in w.owner)
        )
        assert strips <= 0.05 * inside
