"""What a shard computes: every output pixel once, with the strips that fades need and few more."""

from fractions import Fraction

import numpy as np
from hypothesis import given, settings

from tests.scenes import BLENDS, scenes
from tierscale.pipeline.geometry.grid import Grid, Surroundings
from tierscale.pipeline.geometry.layout import fading_parts, lay_out

AROUND = tuple(map(Surroundings, (2, 5, 9, 11)))


@settings(max_examples=60)
@given(scenes(), BLENDS)
def test_windows_hold_what_is_used_of_them_and_their_tiles_are_of_one_tier(scene, blend):
    grid, routes = scene
    for shard in grid.all_shards():
        for work in lay_out(grid, routes, shard, AROUND, blend):
            valid, window = work.valid, work.window
            assert window.y.start <= valid.y.start and window.y.stop >= valid.y.stop
            assert window.x.start <= valid.x.start and window.x.stop >= valid.x.stop
            own = [use for use in work.uses if routes[use.tile] == work.tier]
            assert all(use.rect == grid.core(*use.tile) for use in own)
            assert all(routes[use.tile] > work.tier for use in work.uses if use not in own)


@settings(max_examples=60)
@given(scenes(), BLENDS)
def test_each_core_is_made_once_by_the_tier_of_its_tile(scene, blend):
    grid, routes = scene
    made = np.zeros(grid.tiles, int)
    for shard in grid.all_shards():
        for work in lay_out(grid, routes, shard, AROUND, blend):
            for use in work.uses:
                made[use.tile] += routes[use.tile] == work.tier
    assert (made == 1).all()


def test_only_the_dearer_tile_fades():
    grid = Grid((64, 64), Fraction(4), 32)
    routes = np.array([[0, 1], [0, 1]])
    assert fading_parts(grid, routes, (0, 0), 4) == []
    assert {tier for tier, _, _ in fading_parts(grid, routes, (0, 1), 4)} == {0}


def test_extra_work_along_mixed_edges_is_small():
    """A third of the edges mixed costs a shard of 4 by 4 tiles less than five per cent more."""
    grid = Grid((128 * 12, 128 * 12), Fraction(4), 128)
    rng = np.random.default_rng(0)
    around, costs = tuple(map(Surroundings, (2, 8, 21))), (240.0, 24_000.0, 570_000.0)
    for _ in range(20):
        base = rng.integers(0, 3, (3, 3)).repeat(4, 0).repeat(4, 1)
        works = [
            work for shard in grid.all_shards() for work in lay_out(grid, base, shard, around, 4)
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
