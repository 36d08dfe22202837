"""Groups of tiles: the best choice there is, at the cost that the pipeline really pays."""

import itertools
from fractions import Fraction

import numpy as np
import pytest

from tierscale.pipeline.geometry.grid import Grid
from tierscale.pipeline.plan.tiers import Tier
from tierscale.pipeline.routing.costs import cost_of_routes
from tierscale.pipeline.routing.policies import budget
from tierscale.pipeline.routing.problem import RoutingProblem
from tierscale.pipeline.routing.windows import groups

COSTS = (240.0, 24_000.0, 570_000.0)
REACHES = (2, 8, 21)


def tiers(count=3):
    return tuple(
        Tier(f"t{i}", "", 1.0, COSTS[-count:][i], REACHES[-count:][i], 0.0) for i in range(count)
    )


@pytest.mark.parametrize(("shape", "count"), [((2, 3), 3), ((3, 3), 2), ((1, 5), 3)])
def test_no_other_routes_of_a_shard_have_less_error_and_priced_cost(shape, count):
    grid, rng = Grid((shape[0] * 32 - 9, shape[1] * 32), Fraction(4), 32), np.random.default_rng(0)
    cost_of, found = cost_of_routes(grid, tiers(count), 4, 1), groups(grid, tiers(count), 4, 1)
    every = np.array(list(itertools.product(range(count), repeat=shape[0] * shape[1])))
    costs = np.array([cost_of(routes) for routes in every])
    assert [found.cost(routes) for routes in every] == pytest.approx(costs, rel=1e-12)
    for price in np.geomspace(1e-10, 1e-6, 30):
        errors = np.sort(np.exp(rng.normal(0, 2, (every.shape[1], count))), axis=1)[:, ::-1]
        values = errors[np.arange(every.shape[1]), every].sum(axis=1) + price * costs
        mine = found.least(errors, price)
        assert values[(every == mine).all(axis=1)] == pytest.approx(values.min(), rel=1e-12)


@pytest.mark.parametrize("size", [(700, 500), (129, 40), (512, 2000), (1600, 1600)])
def test_windows_cost_what_the_layout_pays_where_no_strips_are_needed(size):
    grid = Grid(size, Fraction(4), 64)
    cost_of, found = cost_of_routes(grid, tiers(), 4, 3), groups(grid, tiers(), 4, 3)
    for tier in range(3):
        whole = found.depths[0].cost[:, :, tier].sum()
        assert whole == pytest.approx(cost_of(np.full(grid.tiles[0] * grid.tiles[1], tier)))


def test_work_without_a_price_goes_where_errors_are_least_and_at_any_price_to_the_first_tier():
    grid, rng = Grid((300, 280), Fraction(4), 32), np.random.default_rng(0)
    errors = rng.random((grid.tiles[0] * grid.tiles[1], 3))
    found = groups(grid, tiers(), 4, 1)
    assert np.array_equal(found.least(errors, 0.0), errors.argmin(axis=1))
    assert not found.least(errors, 1e6).any()


def test_a_budget_buys_less_error_in_groups():
    grid, rng = Grid((32 * 12, 32 * 16), Fraction(4), 32), np.random.default_rng(3)
    hard = np.exp(rng.normal(-7, 1, grid.tiles))
    hard[3:9, 5:12] *= 4
    errors = hard.reshape(-1, 1) * np.array([1.0, 0.8, 0.7])
    cost_of = cost_of_routes(grid, tiers(), 4, 1)
    alone = RoutingProblem(COSTS, cost_of)
    together = RoutingProblem(COSTS, cost_of, groups=groups(grid, tiers(), 4, 1))
    for share in (0.25, 0.5, 0.75):
        left = [
            np.take_along_axis(errors, budget(errors, one, share)[:, None], axis=1).sum()
            for one in (alone, together)
        ]
        gain = errors[:, 0].sum() - errors[:, 2].sum()
        assert left[1] < left[0] - 0.01 * gain
