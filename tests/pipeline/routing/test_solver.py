"""Laws of the search: what is allowed is never passed, and what is left of it would buy nothing."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.pipeline.routing.scores import COSTS, TIERS, flat, more_would_gain, scores
from tierscale.pipeline.geometry.grid import Grid
from tierscale.pipeline.routing.costs import cost_of_routes
from tierscale.pipeline.routing.problem import RoutingProblem, all_full, all_light
from tierscale.pipeline.routing.solver import bracket, least_cost, least_error
from tierscale.pipeline.routing.windows import groups

FLAT = RoutingProblem(COSTS, flat)


def left(errors, routes):
    return np.take_along_axis(errors, routes[:, None], axis=1).sum()


@given(scores(), st.floats(0.01, 1))
def test_a_cost_is_never_passed_and_used_up_to_one_step_where_that_gains(errors, share):
    most = flat(all_full(errors))
    routes = least_error(errors, FLAT, share * most)
    assert flat(routes) <= share * most
    assert share * most - flat(routes) < max(0.01 * most, COSTS[2]) or not more_would_gain(
        errors, routes
    )


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_nothing_is_spent_where_nothing_is_saved(share):
    errors = np.vstack([np.full((6, 3), 1e-5), [[0.03, 0.02, 0.01]]])
    assert least_error(errors, FLAT, share * flat(all_full(errors)))[:6].max() == 0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.02, 1))
def test_a_cost_holds_with_halos_and_strips_counted(seed, share):
    grid = Grid((96 * 7 - 11, 96 * 6), Fraction(4), 96)
    cost_of = cost_of_routes(grid, TIERS, 4, 1)
    count = grid.tiles[0] * grid.tiles[1]
    rng = np.random.default_rng(seed)
    base = np.exp(rng.normal(-7, 2, count))
    errors = np.column_stack([base, base * 0.8, base * rng.uniform(0.4, 0.8, count)])
    most = cost_of(all_full(errors))
    used = cost_of(least_error(errors, RoutingProblem(COSTS, cost_of), share * most))
    step = COSTS[2] * (96 + 50) ** 2
    assert used <= share * most
    assert share * most - used <= max(0.01 * most, step)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.05, 0.95), st.integers(1, 4), st.integers(1, 4))
def test_no_single_tile_that_would_be_better_still_fits_in_a_small_image(seed, share, down, across):
    grid = Grid((64 * down - 7, 64 * across - 30), Fraction(4), 64)
    cost_of, rng = cost_of_routes(grid, TIERS, 4, 1), np.random.default_rng(seed)
    errors = -np.sort(-np.exp(rng.normal(-7, 2, (down * across, 3))))
    most = cost_of(all_full(errors))
    assume(share * most >= cost_of(all_light(errors)))
    routes = least_error(errors, RoutingProblem(COSTS, cost_of), share * most)
    unused = share * most - cost_of(routes)
    assert unused >= 0
    for tile, tier in itertools.product(range(len(routes)), range(3)):
        if unused > 0.01 * most and tier > routes[tile]:
            more = routes.copy()
            more[tile] = tier
            assert cost_of(more) > share * most


@pytest.mark.parametrize("costs", [(1.0, 2.0, 4.0), (2.0, 1.0, 4.0), (3.0, 2.0, 1.0)])
def test_a_search_ends_where_costs_fall_or_nothing_fits(costs):
    """Measured seconds need not rise from tier to tier, and may be told in two ways."""
    errors = np.array([[1.0, 0.9, 0.8], [1.0, 0.5, 0.1], [0.2, 0.1, 0.0]])
    problem = RoutingProblem(costs, lambda routes: float(np.take(costs, routes).sum()))
    for allowed in (0.0, 3 * costs[0], 3 * costs[0] + 0.5, 99.0):
        ends = bracket(
            errors, problem, lambda routes, most=allowed: problem.cost_of(routes) <= most
        )
        assert problem.cost_of(ends.fits) <= allowed or (ends.fits == 0).all()


def test_work_goes_where_it_saves_most():
    errors = np.array([[1.0, 0.9, 0.8], [1.0, 0.5, 0.1], [0.2, 0.1, 0.0]])
    costs = (1.0, 2.0, 4.0)
    problem = RoutingProblem(costs, lambda routes: float(np.take(costs, routes).sum()))
    assert least_error(errors, problem, 6.0).tolist() == [0, 2, 0]


@given(st.integers(1, 3), st.floats(0.05, 1))
def test_equal_scores_are_broken_by_position(tiles, share):
    errors = np.tile([0.3, 0.2, 0.1], (tiles * 7, 1))
    routes = least_error(errors, FLAT, share * COSTS[2] * len(errors))
    assert (np.diff(routes) <= 0).all()
    assert flat(routes) <= share * COSTS[2] * len(errors)


@settings(deadline=None)
@given(scores(), st.floats(0, 1))
def test_no_more_is_lost_than_allowed_and_no_tile_is_dear_in_vain(errors, db):
    errors = errors[:, [0, 2]]
    problem = RoutingProblem((COSTS[0], COSTS[2]), lambda routes: float(routes.sum()))
    routes = least_cost(errors, problem, db)
    allowed = errors[:, 1].sum() * 10 ** (db / 10) * (1 + 1e-9)
    gains = errors[:, 0] - errors[:, 1]
    lost = left(errors, routes)
    assert lost <= allowed
    if routes.any():
        assert lost + gains[routes == 1].min() > allowed * (1 - 1e-6) or routes.sum() == len(errors)


@pytest.mark.parametrize("seed", range(6))
def test_no_cost_much_lower_has_the_same_quality(seed):
    grid = Grid((64 * 5, 64 * 6), Fraction(4), 64)
    rng = np.random.default_rng(seed)
    base = np.exp(rng.normal(-7, 1.5, 30))
    errors = np.column_stack([base, base * 0.8, base * rng.uniform(0.4, 0.8, 30)])
    problem = RoutingProblem(
        COSTS, cost_of_routes(grid, TIERS, 4, 1), groups=groups(grid, TIERS, 4, 1)
    )
    routes = least_cost(errors, problem, 0.15)
    assert left(errors, routes) <= errors[:, 2].sum() * 10**0.015 * (1 + 1e-9)
    cheaper = least_error(errors, problem, 0.93 * problem.cost_of(routes))
    assert left(errors, cheaper) > errors[:, 2].sum() * 10**0.015


def test_a_quality_that_only_the_full_tier_has_takes_it_everywhere():
    errors = np.array([[0.5, 0.4, 0.1]] * 5)
    assert least_cost(errors, FLAT, 0.0).tolist() == [2] * 5
    assert least_cost(errors, FLAT, 20.0).tolist() == [0] * 5


def test_large_tiles_weigh_more_in_quality():
    errors = np.array([[0.2, 0.1, 0.1], [0.2, 0.1, 0.1]])
    areas = np.array([1000.0, 1.0])

    def cost_of(routes):
        return float((areas * np.take(COSTS, routes)).sum())

    assert least_cost(errors, RoutingProblem(COSTS, cost_of, areas), 0.1).tolist() == [1, 0]
