"""What a draft tells the policies, and what is then said of the routes."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from tests.plans import FULL, LIGHT, draft_of, plan_of, scored_of
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.plan.policies import (
    Adaptive,
    Budget,
    Deadline,
    Full,
    MaxLoss,
    Threshold,
)
from tierscale.pipeline.routing.audit import loss_db
from tierscale.pipeline.routing.costs import areas, full_cost, planned_cost
from tierscale.pipeline.routing.routes import (
    TierTimings,
    TimeLimit,
    better_budget,
    curve,
    remarks,
    route,
    seconds_beside_networks,
)

# Dear enough for calls to count as nothing beside it.
TWO = (LIGHT, replace(FULL, cost=2.4e7, reach=8))


def scored(policy, size=(200, 330), tiers=TWO):
    """An image with scores of many sizes, of which the last tier leaves 0.4 to 1."""
    draft = draft_of(size, tiers, policy=policy)
    rng = np.random.default_rng(0)
    base = np.exp(rng.normal(-8, 1.5, draft.grid.tiles)).astype(np.float32).reshape(-1, 1)
    better = base * rng.uniform(0.4, 1, base.shape).astype(np.float32)
    return scored_of(draft, np.concatenate([base, better], axis=1))


def test_areas_are_those_of_the_cores():
    draft = draft_of()
    wanted = [
        draft.grid.core(row, column).area
        for row in range(draft.grid.tiles[0])
        for column in range(draft.grid.tiles[1])
    ]
    assert areas(draft).tolist() == wanted and sum(wanted) == 200 * 330


def test_areas_are_exact_at_fractions():
    assert areas(draft_of((50, 61), scale=Fraction(5, 2), tile=16)).sum() == 50 * 61


@pytest.mark.parametrize("policy", [Budget(0.5), MaxLoss(0.3), Adaptive()])
def test_a_score_that_is_no_number_is_refused_and_names_the_tile(policy):
    plan = scored(policy)
    plan.scores[plan.grid.tiles[1] + 2, 0] = np.nan
    with pytest.raises(Refused, match=r"tile \(row 1, column 2\)"):
        route(plan)


def test_max_loss_stays_within_what_may_be_lost_and_saves():
    plan = scored(MaxLoss(0.2))
    routes = route(plan)
    assert 0 < loss_db(plan, plan.scores, routes) <= 0.2 + 1e-6
    assert planned_cost(plan, routes) < 0.9 * full_cost(plan)


def test_a_budget_is_kept_with_all_halos():
    plan = scored(Budget(0.5))
    routes = route(plan)
    assert routes.shape == plan.grid.tiles
    assert 0.4 * full_cost(plan) < planned_cost(plan, routes) <= 0.5 * full_cost(plan)


def test_where_scattered_tiles_cost_more_than_full_everywhere_it_is_full():
    """Each tile pays its own halo here; a threshold alone does not know that."""
    plan = scored(Threshold(0.0), (32 * 8, 32 * 8))
    chequered = np.indices(plan.grid.tiles).sum(axis=0) % 8 > 0
    errors = np.where(chequered.reshape(-1, 1), [[0.2, 0.1]], [[0.1, 0.1]]).astype(np.float32)
    assert planned_cost(plan, chequered.astype(int)) > full_cost(plan)
    assert (route(replace(plan, scores=errors)) == 1).all()


def test_a_loss_out_of_reach_is_said_to_be_all_full():
    plan = scored(MaxLoss(0.0))
    routes = route(plan)
    assert (routes == 1).all()
    assert "within 0 dB of full" in remarks(plan_of(plan, routes))[0]
    assert remarks(plan_of(draft_of(policy=Full()), routes=None)) == []


def test_a_deadline_that_leaves_time_for_the_first_tier_alone_is_remarked():
    draft = draft_of(policy=Deadline(60.0))
    assert "no time for more than light" in remarks(plan_of(draft, np.zeros(draft.grid.tiles)))[0]
    assert remarks(plan_of(draft)) == []


@pytest.mark.parametrize("left", [0.2, 0.5, 0.8])
def test_a_deadline_is_met_by_the_speeds_that_were_measured(left):
    plan, speeds = scored(Deadline(60.0)), (1e-7, 2e-5)
    routes = route(plan, TierTimings(TimeLimit(lambda: left, workers=2), speeds))
    timed = tuple(replace(tier, cost=speed) for tier, speed in zip(plan.tiers, speeds, strict=True))
    seconds = planned_cost(replace(plan, tiers=timed), routes) / 2
    step = 2e-5 * (32 + 2 * plan.halo) ** 2 / 2
    allowed = left - seconds_beside_networks(plan)
    assert allowed - step < seconds <= allowed


def test_a_deadline_that_is_over_is_refused_or_in_an_archive_met_as_far_as_can_be():
    plan, speeds = scored(Deadline(60.0)), (1e-7, 2e-5)
    with pytest.raises(
        Refused, match="0 seconds are too few: the first tier everywhere takes about"
    ):
        route(plan, TierTimings(TimeLimit(lambda: 0.0, 1), speeds))
    assert not route(plan, TierTimings(TimeLimit(lambda: 0.0, 1, late=True), speeds)).any()


def test_speeds_that_do_not_rise_do_no_harm():
    plan = scored(Deadline(60.0))
    assert (route(plan, TierTimings(TimeLimit(lambda: 50.0, 1), (2e-5, 1e-5))) == 1).all()


def test_the_curve_falls_from_the_first_tier_to_nothing_lost():
    plan = scored(Adaptive())
    points = curve(plan, plan.scores, (0.001, 0.2, 0.5, 1.0))
    shares, losses = zip(*points, strict=True)
    assert len(points) == 4, "a budget below the first tier has no place on it"
    assert list(shares) == sorted(shares) and list(losses) == sorted(losses, reverse=True)
    assert losses[-1] == pytest.approx(0, abs=1e-6) and shares[-1] == pytest.approx(1)


def test_a_budget_that_would_do_as_well_for_much_less_is_remarked():
    plan = plan_of(draft_of(policy=Adaptive()))
    points = [(0.1, 0.5), (0.3, 0.2), (0.6, 0.1)]
    assert "--budget 0.3 is predicted" in better_budget(plan, points, 0.6, 0.2)[0]
    assert better_budget(plan, points, 0.35, 0.2) == [], "that is hardly less"
    within = plan_of(draft_of(policy=Budget(0.6)))
    assert better_budget(within, points, 0.6, 0.2) == [], "a budget knows about halos"
