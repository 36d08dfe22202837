"""Laws of routing: order of tiles has no say, budgets are kept."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tierscale.pipeline.geometry.grid import Grid
from tierscale.pipeline.plan.tiers import Tier
from tierscale.pipeline.routing import policies as routing
from tierscale.pipeline.routing.costs import cost_of_routes
from tierscale.pipeline.routing.policies import RoutingProblem
from tierscale.pipeline.routing.windows import groups

COSTS = (240.0, 24_000.0, 570_000.0)


def flat(routes):
    return float(np.take(COSTS, routes).sum())


def more_would_gain(errors, routes):
    """Whether a dearer tier saves anything on any tile."""
    dearer = np.arange(errors.shape[1]) > routes[:, None]
    return (dearer & (errors < np.take_along_axis(errors, routes[:, None], axis=1))).any()


@st.composite
def scores(draw, most=80):
    count = draw(st.integers(1, most))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    base = np.exp(rng.normal(-7, draw(st.floats(0, 3)), count))
    gains = rng.uniform(0.2, 1.05, (count, 2)).cumprod(axis=1)
    return np.column_stack([base, base[:, None] * gains])


@settings(deadline=None)
@given(
    scores(),
    st.sampled_from(["adaptive", "threshold", "dearest", "cheapest"]),
    st.integers(0, 2**31),
)
def test_routes_do_not_change_when_tiles_are_shuffled(errors, policy, seed):
    order = np.random.default_rng(seed).permutation(len(errors))
    choice = RoutingProblem(COSTS, flat, threshold=1e-4)
    np.testing.assert_array_equal(
        routing.POLICIES[policy](errors[order], choice),
        routing.POLICIES[policy](errors, choice)[order],
    )


@given(scores(), st.floats(0.01, 1))
def test_the_budget_is_never_passed_and_used_up_to_one_step_where_that_gains(errors, share):
    choice = RoutingProblem(COSTS, flat, budget=share)
    most = flat(routing.dearest(errors, choice))
    routes = routing.budget(errors, choice)
    assert flat(routes) <= share * most
    assert share * most - flat(routes) < max(0.01 * most, COSTS[2]) or not more_would_gain(
        errors, routes
    )


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_nothing_is_spent_where_nothing_is_saved(share):
    errors = np.vstack([np.full((6, 3), 1e-5), [[0.03, 0.02, 0.01]]])
    assert routing.budget(errors, RoutingProblem(COSTS, flat, budget=share))[:6].max() == 0


@given(st.floats(1e-9, 1))
def test_a_share_that_is_named_is_no_less_than_it_is(share):
    assert share <= float(routing.rounded_up(share)) <= share * 1.011


def test_the_budget_that_a_refusal_names_is_accepted():
    costs = (1.0, 813.0)
    choice = RoutingProblem(costs, lambda r: float(np.take(costs, r).sum()), budget=0.001)
    with pytest.raises(ValueError, match=r"which costs 0\.00124; ask for that or more"):
        routing.budget(np.zeros((4, 2)), choice)
    assert (
        routing.budget(
            np.zeros((4, 2)), RoutingProblem(costs, choice.cost_of, budget=0.00124)
        ).tolist()
        == [0] * 4
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.02, 1))
def test_the_budget_holds_with_halos_and_strips_counted(seed, share):
    grid = Grid((96 * 7 - 11, 96 * 6), Fraction(4), 96)
    tiers = tuple(
        Tier(f"t{i}", "", 1.0, cost, reach, 0.0)
        for i, (cost, reach) in enumerate(zip(COSTS, (2, 8, 21), strict=True))
    )
    cost_of = cost_of_routes(grid, tiers, 4, 1)
    count = grid.tiles[0] * grid.tiles[1]
    rng = np.random.default_rng(seed)
    base = np.exp(rng.normal(-7, 2, count))
    errors = np.column_stack([base, base * 0.8, base * rng.uniform(0.4, 0.8, count)])
    choice = RoutingProblem(COSTS, cost_of, budget=share)
    most, used = cost_of(routing.dearest(errors, choice)), cost_of(routing.budget(errors, choice))
    step = COSTS[2] * (96 + 50) ** 2
    assert used <= share * most
    assert share * most - used <= max(0.01 * most, step)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.05, 0.95), st.integers(1, 4), st.integers(1, 4))
def test_no_single_tile_that_would_be_better_still_fits_a_budget_of_a_small_image(
    seed, share, down, across
):
    grid = Grid((64 * down - 7, 64 * across - 30), Fraction(4), 64)
    tiers = tuple(
        Tier(f"t{i}", "", 1.0, cost, reach, 0.0)
        for i, (cost, reach) in enumerate(zip(COSTS, (2, 8, 21), strict=True))
    )
    cost_of, rng = cost_of_routes(grid, tiers, 4, 1), np.random.default_rng(seed)
    errors = -np.sort(-np.exp(rng.normal(-7, 2, (down * across, 3))))
    choice = RoutingProblem(COSTS, cost_of, budget=share)
    most = cost_of(routing.dearest(errors, choice))
    assume(share * most >= cost_of(routing.cheapest(errors, choice)))
    routes = routing.budget(errors, choice)
    left = share * most - cost_of(routes)
    assert left >= 0
    for tile, tier in itertools.product(range(len(routes)), range(3)):
        if left > 0.01 * most and tier > routes[tile]:
            more = routes.copy()
            more[tile] = tier
            assert cost_of(more) > share * most


def test_a_budget_goes_where_it_saves_most():
    errors = np.array([[1.0, 0.9, 0.8], [1.0, 0.5, 0.1], [0.2, 0.1, 0.0]])
    choice = RoutingProblem(
        (1.0, 2.0, 4.0), lambda routes: float(np.take((1.0, 2.0, 4.0), routes).sum()), budget=0.5
    )
    assert routing.budget(errors, choice).tolist() == [0, 2, 0]


def test_a_budget_below_the_cheapest_tier_names_the_smallest_possible():
    with pytest.raises(
        ValueError, match=r"below the cheapest tier everywhere, which costs 0\.25; ask"
    ):
        routing.budget(
            np.zeros((4, 2)),
            RoutingProblem((1.0, 4.0), lambda r: float(np.take((1.0, 4.0), r).sum()), budget=0.1),
        )


@settings(deadline=None)
@given(scores(), st.floats(0, 1))
def test_quality_loses_no_more_than_it_may_and_no_tile_is_dear_in_vain(errors, lose):
    errors = errors[:, [0, 2]]
    choice = RoutingProblem((COSTS[0], COSTS[2]), lambda routes: float(routes.sum()), lose=lose)
    routes = routing.quality(errors, choice)
    allowed = errors[:, 1].sum() * 10 ** (lose / 10) * (1 + 1e-9)
    gains = errors[:, 0] - errors[:, 1]
    left = np.take_along_axis(errors, routes[:, None], axis=1).sum()
    assert left <= allowed
    if routes.any():
        assert left + gains[routes == 1].min() > allowed * (1 - 1e-6) or routes.sum() == len(errors)


@pytest.mark.parametrize("seed", range(6))
def test_no_budget_has_the_same_quality_for_much_less(seed):
    grid = Grid((64 * 5, 64 * 6), Fraction(4), 64)
    tiers = tuple(
        Tier(f"t{i}", "", 1.0, cost, reach, 0.0)
        for i, (cost, reach) in enumerate(zip(COSTS, (2, 8, 21), strict=True))
    )
    rng = np.random.default_rng(seed)
    base = np.exp(rng.normal(-7, 1.5, 30))
    errors = np.column_stack([base, base * 0.8, base * rng.uniform(0.4, 0.8, 30)])
    choice = RoutingProblem(
        COSTS, cost_of_routes(grid, tiers, 4, 1), lose=0.15, groups=groups(grid, tiers, 4, 1)
    )
    routes = routing.quality(errors, choice)

    def left(of):
        return np.take_along_axis(errors, of[:, None], axis=1).sum()

    assert left(routes) <= errors[:, 2].sum() * 10**0.015 * (1 + 1e-9)
    cheaper = routing.within(errors, choice, 0.93 * choice.cost_of(routes))
    assert left(cheaper) > errors[:, 2].sum() * 10**0.015


def test_a_quality_that_only_the_dearest_has_takes_the_dearest():
    errors = np.array([[0.5, 0.4, 0.1]] * 5)
    assert routing.quality(errors, RoutingProblem(COSTS, flat, lose=0.0)).tolist() == [2] * 5
    assert routing.quality(errors, RoutingProblem(COSTS, flat, lose=20.0)).tolist() == [0] * 5
    with pytest.raises(ValueError, match="--lose"):
        routing.quality(errors, RoutingProblem(COSTS, flat))


def test_large_tiles_weigh_more_in_quality():
    errors = np.array([[0.2, 0.1, 0.1], [0.2, 0.1, 0.1]])
    areas = np.array([1000.0, 1.0])

    def cost_of(routes):
        return float((areas * np.take(COSTS, routes)).sum())

    assert routing.quality(
        errors, RoutingProblem(COSTS, cost_of, lose=0.1, areas=areas)
    ).tolist() == [1, 0]


@settings(deadline=None)
@given(scores(), st.floats(0, 1))
def test_a_deadline_is_a_budget_in_seconds(errors, share):
    least, most = (
        flat(routing.cheapest(errors, RoutingProblem(COSTS, flat))),
        flat(routing.dearest(errors, RoutingProblem(COSTS, flat))),
    )
    seconds = least + share * (most - least)
    routes = routing.deadline(errors, RoutingProblem(COSTS, flat, seconds=seconds))
    assert flat(routes) <= seconds
    assert seconds - flat(routes) <= max(0.01 * most, COSTS[2]) or not more_would_gain(
        errors, routes
    )


def test_a_deadline_that_is_too_short_names_the_shortest():
    with pytest.raises(
        ValueError, match=r"5 seconds are too few: the cheapest tier everywhere takes about 12;"
    ):
        routing.deadline(
            np.zeros((3, 2)),
            RoutingProblem((4.0, 9.0), lambda r: float(np.take((4.0, 9.0), r).sum()), seconds=5.0),
        )


@given(st.integers(1, 3), st.floats(0.05, 1))
def test_equal_scores_are_broken_by_position(tiles, share):
    errors = np.tile([0.3, 0.2, 0.1], (tiles * 7, 1))
    routes = routing.budget(errors, RoutingProblem(COSTS, flat, budget=share))
    assert (np.diff(routes) <= 0).all()
    assert flat(routes) <= share * COSTS[2] * len(errors)


@pytest.mark.parametrize("policy", sorted(routing.POLICIES))
@pytest.mark.parametrize(
    "errors",
    [np.zeros((1, 3)), np.zeros((2, 3)), np.full((7, 3), 1e-4), np.array([[0.3, 0.2, 0.1]])],
)
def test_black_flat_and_tiny_images_get_routes(policy, errors):
    choice = RoutingProblem(
        COSTS, flat, budget=0.4, threshold=1e-4, lose=0.02, seconds=0.5 * COSTS[2] * len(errors)
    )
    routes = routing.POLICIES[policy](errors, choice)
    assert routes.shape == (len(errors),)
    assert set(routes.tolist()) <= {0, 1, 2}
    np.testing.assert_array_equal(routing.POLICIES[policy](errors, choice), routes)


@pytest.mark.parametrize("policy", sorted(routing.POLICIES))
def test_scores_of_another_machine_change_at_most_a_tile_in_a_thousand(policy):
    rng = np.random.default_rng(0)
    base = np.exp(rng.normal(-7, 2, 4000))
    errors = np.column_stack(
        [base, base * rng.uniform(0.6, 1, 4000), base * rng.uniform(0.3, 0.6, 4000)]
    )
    # What threads and instruction sets make of a float32 score is some parts in ten million.
    other = errors * (1 + rng.uniform(-1e-6, 1e-6, errors.shape))
    choice = RoutingProblem(
        COSTS, flat, budget=0.4, threshold=1e-4, lose=0.3, seconds=0.5 * COSTS[2] * len(errors)
    )
    routes = routing.POLICIES[policy](errors, choice)
    assert (routes != routing.POLICIES[policy](other, choice)).sum() <= 4
    assert policy in ("cheapest", "dearest") or len(set(routes.tolist())) > 1


def test_adaptive_puts_three_heaps_into_three_tiers():
    difficulty = np.array([1e-6, 0.04, 0.01, 2e-6, 0.0401, 0.0101])
    errors = np.column_stack([difficulty, difficulty / 2, np.zeros(6)])
    assert routing.adaptive(errors, RoutingProblem(COSTS, flat)).tolist() == [0, 2, 1, 0, 2, 1]


def test_a_flat_image_is_cheap_and_says_nothing():
    assert routing.adaptive(np.full((5, 3), 1e-4), RoutingProblem(COSTS, flat)).tolist() == [0] * 5


def test_threshold_takes_the_cheapest_tier_that_is_good_enough():
    errors = np.array([[0.5, 0.4, 0.39], [0.39, 0.39, 0.39], [0.9, 0.6, 0.1]])
    assert routing.threshold(errors, RoutingProblem(COSTS, flat, threshold=0.02)).tolist() == [
        1,
        0,
        2,
    ]


def test_a_score_that_is_no_number_names_its_tile():
    errors = np.zeros((6, 2))
    errors[4, 1] = np.nan
    with pytest.raises(ValueError, match=r"tile \(row 1, column 1\)"):
        routing.check(errors, 3)
