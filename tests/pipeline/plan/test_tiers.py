"""Labels of tiers, and the tiers of a scale that names none."""

from dataclasses import replace
from fractions import Fraction

import pytest

from tests.plans import FULL
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.plan.tiers import default_tiers, denoised, parse_tiers
from tierscale.pipeline.run.tiers import load_tiers

PLAIN = ("bicubic", "anysr-edsr")


@pytest.mark.parametrize("scale", [2, 3, 4, Fraction(3, 2), Fraction(5, 2), Fraction(27, 10)])
def test_the_zoo_knows_the_default_tiers(scale):
    labels = Options(scale=Fraction(scale)).tier_labels
    assert labels[0] == "bicubic" and len(load_tiers(labels, Fraction(scale))) == len(labels) > 1


def test_default_tiers_of_other_scales():
    assert default_tiers(Fraction(5, 2)) == default_tiers(Fraction(8, 3)) == PLAIN
    for tenths in (26, 27, 32):
        assert default_tiers(Fraction(tenths, 10)) == ("bicubic", "anysr-edsr@auto")
    assert default_tiers(Fraction(33, 10)) == PLAIN
    assert default_tiers(Fraction(1)) == default_tiers(Fraction(21, 20)) == ("bicubic",)


def test_tiers_that_are_named_come_before_the_defaults():
    assert Options(tiers=("bicubic",)).tier_labels == ("bicubic",)


def test_a_tier_is_written_as_it_was_asked_for():
    assert FULL.label == "full"
    assert replace(FULL, effort=0.25).label == "full@0.25"
    assert replace(FULL, auto=True).label == "full@auto"


def test_labels_are_parsed_with_commas_and_spaces_between_them():
    assert parse_tiers(" bicubic, edsr-x4@0.5,,") == ("bicubic", "edsr-x4@0.5")
    assert parse_tiers("") == ()


@pytest.mark.parametrize(
    ("label", "strength", "expected"),
    [
        ("edsr-x4-photo", 1, "edsr-x4-photo"),
        ("edsr-x4-photo", 0.7, "edsr-x4*0.3+edsr-x4-photo*0.7"),
        ("edsr-x4-photo+8@0.5", 0.5, "edsr-x4*0.5+edsr-x4-photo*0.5+8@0.5"),
        ("edsr-x4-photo", 0, "edsr-x4"),
        ("edsr-x4-photo+2", 0, "edsr-x4+2"),
        ("edsr-x4", 0.5, "edsr-x4"),
        ("file:my-photo", 0.5, "file:my-photo"),
    ],
)
def test_photo_networks_are_mixed_with_their_clean_twins(label, strength, expected):
    assert denoised(("bicubic", label), strength) == ("bicubic", expected)
