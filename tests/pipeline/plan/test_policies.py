"""A policy is valid once constructed, whoever asks for it and by whatever name."""

import json
import math

import pytest

from tests.plans import POLICIES
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.plan.policies import (
    DEFAULT,
    KINDS,
    PARAMETERS,
    Adaptive,
    Budget,
    Deadline,
    Full,
    Light,
    MaxLoss,
    Threshold,
    in_words,
    needs_scores,
    parameter_of,
    policy_from,
    policy_from_json,
    policy_to_json,
)


def test_every_policy_is_tried_here():
    assert {type(policy) for policy in POLICIES} == set(KINDS.values())


@pytest.mark.parametrize(
    ("kind", "number"),
    [
        (Budget, 0.0),
        (Budget, -0.5),
        (Budget, 1.01),
        (MaxLoss, -0.1),
        (MaxLoss, math.inf),
        (Deadline, 0.0),
        (Deadline, -1.0),
        (Deadline, math.inf),
        (Threshold, -1e-9),
        (Threshold, math.inf),
        *((kind, math.nan) for kind in (Budget, MaxLoss, Deadline, Threshold)),
    ],
)
def test_a_policy_that_cannot_be_is_refused_with_its_number_and_an_example(kind, number):
    with pytest.raises(Refused, match=rf"{number:g} .*write for example \S+"):
        kind(number)


@pytest.mark.parametrize(
    "policy", [Budget(1.0), Budget(1e-9), MaxLoss(0.0), Threshold(0.0), Deadline(1e-9)]
)
def test_the_ends_of_what_can_be_are_taken(policy):
    assert parameter_of(policy) >= 0


@pytest.mark.parametrize("policy", POLICIES, ids=in_words)
def test_json_gives_the_same_policy_back(policy):
    plain = json.loads(json.dumps(policy_to_json(policy)))
    assert policy_from_json(plain) == policy
    assert plain["name"] == policy.name


@pytest.mark.parametrize("policy", POLICIES, ids=in_words)
def test_policies_are_values(policy):
    assert [other == policy for other in POLICIES].count(True) == 1
    assert len({policy, policy_from_json(policy_to_json(policy))}) == 1
    with pytest.raises((AttributeError, TypeError)):
        policy.share = 0.1


@pytest.mark.parametrize(
    ("name", "numbers", "policy"),
    [
        (None, {}, DEFAULT),
        (None, {"budget": None, "deadline": None}, DEFAULT),
        (None, {"budget": 0.3}, Budget(0.3)),
        (None, {"max_loss": 0.1}, MaxLoss(0.1)),
        (None, {"deadline": 60.0}, Deadline(60.0)),
        (None, {"threshold": 0.0}, Threshold(0.0)),
        ("budget", {"budget": 0.3}, Budget(0.3)),
        ("adaptive", {}, Adaptive()),
        ("full", {}, Full()),
        ("light", {}, Light()),
        ("dearest", {}, Full()),
        ("cheapest", {}, Light()),
        ("quality", {"max_loss": 0.1}, MaxLoss(0.1)),
        ("quality", {}, MaxLoss(0.05)),
    ],
)
def test_a_policy_is_asked_for_by_its_name_its_number_or_both(name, numbers, policy):
    assert policy_from(name, numbers) == policy


def test_the_name_of_the_default_alone_gives_its_number_too():
    assert policy_from(None, {}, MaxLoss(0.05)) == MaxLoss(0.05)
    assert policy_from("max-loss", {}, MaxLoss(0.05)) == MaxLoss(0.05)
    assert policy_from("max-loss", {"max_loss": 0.2}, MaxLoss(0.05)) == MaxLoss(0.2)


# Of max-loss there is a default.
@pytest.mark.parametrize("name", sorted(set(PARAMETERS.values()) - {"max-loss"}))
def test_whoever_forgets_the_number_of_a_policy_is_shown_one(name):
    with pytest.raises(Refused, match=rf"policy {name} needs a number; give \w+, such as \S+$"):
        policy_from(name, {})


@pytest.mark.parametrize(
    ("name", "numbers", "message"),
    [
        ("best", {}, "no policy 'best'; choose one of max-loss, adaptive, budget"),
        ("budget", {}, "needs a number; give budget, such as 0.5"),
        ("full", {"budget": 0.3}, "budget belongs to policy budget and would be ignored by full"),
        ("dearest", {"max_loss": 0.3}, "max_loss belongs .* ignored by full"),
        (None, {"budget": 0.3, "deadline": 60.0}, "deadline belongs .* ignored by budget"),
        ("budget", {"budget": 0.3, "threshold": 0.1}, "threshold belongs .* ignored by budget"),
        ("budget", {"budget": 3.0}, "a budget of 3 "),
    ],
)
def test_what_is_missing_or_would_be_ignored_is_refused(name, numbers, message):
    with pytest.raises(Refused, match=message):
        policy_from(name, numbers)


def test_what_each_policy_needs_to_know_of_tiles():
    assert [policy for policy in POLICIES if not needs_scores(policy)] == [Full(), Light()]


def test_policies_in_words():
    assert [in_words(policy) for policy in POLICIES] == [
        "adaptive",
        "budget 0.3",
        "budget 0.3 of the archive",
        "max-loss 0.02",
        "deadline 90",
        "threshold 0.0001",
        "full",
        "light",
    ]
