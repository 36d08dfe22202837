"""One budget for many images: never passed, better than a budget for each, and the same again."""

from dataclasses import replace

import numpy as np
import pytest

from tests.plans import FULL, LIGHT, draft_of, scored_of
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.plan.policies import Budget
from tierscale.pipeline.routing.costs import areas, full_cost, planned_cost
from tierscale.pipeline.routing.routes import route, routing_problem
from tierscale.pipeline.routing.shared_budget import JointGroups, ScoredImage, split_budget

TIERS = (LIGHT, replace(FULL, cost=24_000.0, reach=8))


def scored_image(seed, hard=1.0, size=(200, 330)):
    draft = draft_of(size, TIERS, policy=Budget(0.5, shared=True))
    rng = np.random.default_rng(seed)
    base = np.exp(rng.normal(-8, 1.5, draft.grid.tiles)).astype(np.float32).reshape(-1, 1)
    better = base * rng.uniform(0.4, 1, base.shape).astype(np.float32)
    scores = np.concatenate([base, better], axis=1) * np.float32(hard)
    return ScoredImage(draft, scores, None)


def alone(image, share):
    """The routes that an image has with a budget of its own."""
    return route(scored_of(replace(image.plan, policy=Budget(share)), image.scores))


def total(images, routes):
    cost = sum(planned_cost(image.plan, own) for image, own in zip(images, routes, strict=True))
    return cost / sum(full_cost(image.plan) for image in images)


def left(images, routes):
    return sum(
        float(
            (
                areas(image.plan)
                * np.take_along_axis(image.scores, own.reshape(-1, 1), axis=1)[:, 0]
            ).sum()
        )
        for image, own in zip(images, routes, strict=True)
    )


@pytest.mark.parametrize("share", [0.1, 0.3, 0.6, 1.0])
def test_a_shared_budget_is_kept_and_goes_where_it_pays(share):
    images = [scored_image(0, 0.01), scored_image(1, 1.0), scored_image(2, 0.1, (90, 400))]
    routes = split_budget(images, share)
    assert total(images, routes) <= share
    tiles = sum(len(image.scores) for image in images)
    assert total(images, routes) > share - max(0.01, 2 / tiles)
    each = [alone(image, share) for image in images]
    assert left(images, routes) <= left(images, each) * (1 + 1e-9)
    if share == 0.3:
        assert routes[0].mean() < 0.2 < routes[1].mean(), "easy images leave theirs to hard ones"
        assert left(images, routes) < 0.95 * left(images, each)


def test_one_image_alone_has_the_routes_of_its_own_budget():
    image = scored_image(3)
    np.testing.assert_array_equal(split_budget([image], 0.4)[0], alone(image, 0.4))


def test_images_that_were_planned_keep_their_routes_and_nothing_else_changes():
    images = [scored_image(0), scored_image(1, 0.2), scored_image(2)]
    routes = split_budget(images, 0.4)
    stored = [replace(images[0], routes=routes[0]), *images[1:]]
    for first, again in zip(routes, split_budget(stored, 0.4), strict=True):
        np.testing.assert_array_equal(again, first)
    # An image that was planned when it was alone has more than its part now; the others have what
    # is left.
    greedy = replace(images[0], routes=np.ones(images[0].plan.grid.tiles, int))
    made = split_budget([greedy, *images[1:]], 0.4)
    assert (made[0] == 1).all() and total([greedy, *images[1:]], made) <= 0.4


def test_a_budget_below_the_first_tier_names_the_smallest():
    images = [scored_image(0), scored_image(1)]
    with pytest.raises(
        Refused,
        match=r"budget of 0\.001 for the archive is less than .* ask for (0\.0\d+) or more",
    ) as error:
        split_budget(images, 0.001)
    named = float(str(error.value).split("ask for ")[1].split()[0])
    assert not np.concatenate([own.ravel() for own in split_budget(images, named)]).all()


def test_the_groups_of_several_images_are_those_of_each():
    images = [scored_image(0), scored_image(1, 1.0, (90, 400))]
    problems = [routing_problem(image.plan) for image in images]
    joint = JointGroups(
        tuple(problem.groups for problem in problems), tuple(len(image.scores) for image in images)
    )
    errors = np.concatenate([image.scores for image in images])
    routes = joint.least(errors, 1e-9)
    for own, problem, image in zip(joint.split(routes), problems, images, strict=True):
        np.testing.assert_array_equal(own, problem.groups.least(image.scores, 1e-9))
    assert joint.cost(routes) == sum(
        problem.groups.cost(own) for own, problem in zip(joint.split(routes), problems, strict=True)
    )
    tiles = np.arange(0, len(errors), 3)
    assert sorted(joint.together(tiles, errors[tiles, 0])) == tiles.tolist()
