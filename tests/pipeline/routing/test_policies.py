"""What each policy makes of scores: the order of tiles has no say, and nothing odd breaks it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.pipeline.routing.scores import COSTS, flat, more_would_gain, scores
from tierscale.pipeline.plan.policies import (
    KINDS,
    Adaptive,
    Budget,
    Deadline,
    Full,
    Light,
    MaxLoss,
    Threshold,
)
from tierscale.pipeline.routing.policies import adaptive, budget, choose, deadline, threshold
from tierscale.pipeline.routing.problem import RoutingProblem, all_full, all_light

FLAT = RoutingProblem(COSTS, flat)
# One of each kind; a deadline's seconds are half of what the full tier takes on the tiles at hand.
POLICIES = (
    Adaptive(),
    Budget(0.4),
    MaxLoss(0.3),
    Deadline(3600.0),
    Threshold(1e-4),
    Full(),
    Light(),
)
each_policy = pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)


def chosen(policy, errors):
    return choose(policy, errors, FLAT, 0.5 * COSTS[2] * len(errors))


def test_every_policy_is_tried_here():
    assert {type(policy) for policy in POLICIES} == set(KINDS.values())


@settings(deadline=None)
@given(
    scores(),
    st.sampled_from([Adaptive(), Threshold(1e-4), Full(), Light()]),
    st.integers(0, 2**31),
)
def test_routes_do_not_change_when_tiles_are_shuffled(errors, policy, seed):
    order = np.random.default_rng(seed).permutation(len(errors))
    np.testing.assert_array_equal(chosen(policy, errors[order]), chosen(policy, errors)[order])


@each_policy
@pytest.mark.parametrize(
    "errors",
    [np.zeros((1, 3)), np.zeros((2, 3)), np.full((7, 3), 1e-4), np.array([[0.3, 0.2, 0.1]])],
)
def test_black_flat_and_tiny_images_get_routes(policy, errors):
    routes = chosen(policy, errors)
    assert routes.shape == (len(errors),)
    assert set(routes.tolist()) <= {0, 1, 2}
    np.testing.assert_array_equal(chosen(policy, errors), routes)


@each_policy
def test_scores_of_another_machine_change_at_most_a_tile_in_a_thousand(policy):
    rng = np.random.default_rng(0)
    base = np.exp(rng.normal(-7, 2, 4000))
    errors = np.column_stack(
        [base, base * rng.uniform(0.6, 1, 4000), base * rng.uniform(0.3, 0.6, 4000)]
    )
    # What threads and instruction sets make of a float32 score is some parts in ten million.
    other = errors * (1 + rng.uniform(-1e-6, 1e-6, errors.shape))
    routes = chosen(policy, errors)
    assert (routes != chosen(policy, other)).sum() <= 4
    assert policy in (Full(), Light()) or len(set(routes.tolist())) > 1


def test_full_and_light_are_the_last_and_the_first_tier():
    errors = np.random.default_rng(0).random((6, 3))
    assert chosen(Full(), errors).tolist() == [2] * 6
    assert chosen(Light(), errors).tolist() == [0] * 6


@given(scores(), st.floats(0.01, 1))
def test_a_budget_is_never_passed(errors, share):
    most = flat(all_full(errors))
    routes = choose(Budget(share), errors, FLAT)
    assert flat(routes) <= share * most
    assert share < 1 or (routes == 2).all()


def test_a_budget_below_the_first_tier_names_the_smallest_possible():
    costs = (1.0, 4.0)
    problem = RoutingProblem(costs, lambda r: float(np.take(costs, r).sum()))
    with pytest.raises(
        ValueError, match=r"less than the first tier costs everywhere, which is 0\.25; ask"
    ):
        budget(np.zeros((4, 2)), problem, 0.1)


def test_the_budget_that_a_refusal_names_is_accepted():
    costs = (1.0, 813.0)
    problem = RoutingProblem(costs, lambda r: float(np.take(costs, r).sum()))
    with pytest.raises(ValueError, match=r"which is 0\.00124; ask for that or more"):
        budget(np.zeros((4, 2)), problem, 0.001)
    assert budget(np.zeros((4, 2)), problem, 0.00124).tolist() == [0] * 4


@settings(deadline=None)
@given(scores(), st.floats(0, 1))
def test_a_deadline_is_a_budget_in_seconds(errors, share):
    least, most = flat(all_light(errors)), flat(all_full(errors))
    seconds = least + share * (most - least)
    routes = choose(Deadline(1.0), errors, FLAT, seconds)
    assert flat(routes) <= seconds
    assert seconds - flat(routes) <= max(0.01 * most, COSTS[2]) or not more_would_gain(
        errors, routes
    )
    # Where nothing of its time has passed yet, it is the policy's own.
    own = choose(Deadline(max(seconds, 1e-9)), errors, FLAT)
    np.testing.assert_array_equal(own, routes)


def test_a_deadline_that_is_too_short_names_the_shortest():
    problem = RoutingProblem((4.0, 9.0), lambda r: float(np.take((4.0, 9.0), r).sum()))
    with pytest.raises(
        ValueError, match=r"5 seconds are too few: the first tier everywhere takes about 12;"
    ):
        deadline(np.zeros((3, 2)), problem, 5.0)


def test_adaptive_puts_three_heaps_into_three_tiers():
    difficulty = np.array([1e-6, 0.04, 0.01, 2e-6, 0.0401, 0.0101])
    errors = np.column_stack([difficulty, difficulty / 2, np.zeros(6)])
    assert adaptive(errors).tolist() == [0, 2, 1, 0, 2, 1]


def test_a_flat_image_is_light():
    assert adaptive(np.full((5, 3), 1e-4)).tolist() == [0] * 5


def test_threshold_takes_the_first_tier_that_is_good_enough():
    errors = np.array([[0.5, 0.4, 0.39], [0.39, 0.39, 0.39], [0.9, 0.6, 0.1]])
    assert threshold(errors, 0.02).tolist() == [1, 0, 2]
    assert chosen(Threshold(0.02), errors).tolist() == [1, 0, 2]
