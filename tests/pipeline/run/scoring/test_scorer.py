"""The network that scores tiles is light beside the full tier, and cards are asked by its name."""

from fractions import Fraction

import pytest

from tierscale.models.contract.kind import Kind
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.plan.policies import Budget, Full, MaxLoss
from tierscale.pipeline.run.scoring.scorer import SHARE, find_scorer, is_measured, light_network
from tierscale.pipeline.run.tiers import load_tiers

FOUR = Fraction(4)


def tiers(text, scale=FOUR):
    return load_tiers(text.split(","), scale)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("bicubic,edsr-x4,edsr64-x4", "fsrcnn-x4"),
        ("bicubic,fsrcnn-x4,edsr64-x4", "fsrcnn-x4"),
        ("bicubic,edsr-x4,edsr64-x4+8", "edsr-x4"),
        ("bicubic,fsrcnn-x4,edsr-x4", None),
        ("bicubic,fsrcnn-x4", None),
    ],
)
def test_the_dearest_network_within_the_share(text, name):
    found = light_network(tiers(text), FOUR)
    assert (None if found is None else found.name) == name
    if found is not None:
        (own,) = tiers(found.name)
        assert own.cost <= SHARE * tiers(text)[-1].cost


def test_default_tiers_have_cards_that_know_their_losses():
    for text, scale in (("bicubic,edsr-x4,edsr64-x4", 4), ("bicubic,fsrcnn-x2,carn-x2", 2)):
        assert is_measured(tiers(text, Fraction(scale)), Fraction(scale))
    assert not is_measured(tiers("bicubic,pcsr-carn-x4@0.6"), FOUR)


def test_the_card_is_asked_about_the_kind_of_the_picture():
    text = tiers("bicubic,edsr-x4,edsr64-x4")
    clean = find_scorer(text, FOUR, MaxLoss(0.05))
    jpeg = find_scorer(text, FOUR, MaxLoss(0.05), Kind(0.1, 0.5, 45))
    assert (clean.kind, jpeg.kind) == ("clean", "jpeg50")
    assert clean.gains.below["bicubic"].ratio > 0.8 > 0.5 > jpeg.gains.below["bicubic"].ratio


def test_policies_that_need_no_scores_get_none_and_a_loss_needs_a_card():
    text = tiers("bicubic,pcsr-carn-x4@0.6")
    assert find_scorer(text, FOUR, Full()).scoring == "none"
    assert find_scorer(text, FOUR, Budget(0.5)).gains is None
    with pytest.raises(Refused, match=r"use --budget 0\.5"):
        find_scorer(text, FOUR, MaxLoss(0.05))
