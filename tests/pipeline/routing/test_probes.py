"""Probes: whole tiles of all scores, seldom enough, and the same ones each time."""

from dataclasses import replace

import numpy as np
import pytest

from tests.plans import FULL, LIGHT, draft_of
from tierscale.pipeline.routing.costs import full_cost
from tierscale.pipeline.routing.probes import LEAST, SHARE, probe_count, probe_tiles, whole_tiles

NEAR = (LIGHT, replace(FULL, reach=4))


def test_probes_take_at_most_their_share_of_the_cost():
    draft = draft_of((4000, 4000), (LIGHT, FULL), tile=64)
    count = probe_count(draft, full_cost(draft))
    each = (64 + 2 * 25) ** 2 * (LIGHT.cost + FULL.cost)
    assert count >= LEAST and (count + 1) * each > SHARE * full_cost(draft) >= count * each


def test_one_in_fifty_is_enough():
    draft = draft_of((8000, 8000), NEAR, tile=400)
    assert probe_count(draft, full_cost(draft) * 100) == 0  # 400 tiles are 8 probes, too few
    draft = draft_of((12000, 12000), NEAR, tile=400)
    assert probe_count(draft, full_cost(draft) * 100) == 900 // 50


def test_where_a_few_would_cost_too_much_there_are_none():
    draft = draft_of((640, 640))
    assert probe_count(draft, full_cost(draft)) == 0
    assert probe_tiles(np.zeros(400), draft.grid, 0) == ()


def test_probes_are_whole_tiles_rising_one_from_each_stratum_and_the_same_again():
    grid = draft_of((330, 650)).grid  # the last row and column are cut
    scores = np.random.default_rng(1).exponential(1, grid.tiles[0] * grid.tiles[1])
    tiles = probe_tiles(scores, grid, 20)
    assert tiles == probe_tiles(scores.copy(), grid, 20) == tuple(sorted(set(tiles)))
    assert len(tiles) == 20 and set(tiles) <= set(whole_tiles(grid).tolist())
    ordered = whole_tiles(grid)[np.argsort(scores[whole_tiles(grid)])]
    strata = np.array_split(ordered, 20)
    assert all(len(set(stratum) & set(tiles)) == 1 for stratum in strata)


@pytest.mark.parametrize(("size", "count"), [((64, 96), 6), ((70, 100), 6), ((31, 96), 0)])
def test_whole_tiles_are_those_that_no_edge_cuts(size, count):
    assert len(whole_tiles(draft_of(size).grid)) == count
