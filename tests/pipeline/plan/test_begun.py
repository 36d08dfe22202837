"""What a stored plan lends to a request, and what is said of it."""

from dataclasses import replace
from fractions import Fraction

import pytest

from tests.plans import FULL, LIGHT, SOURCE, draft_of, plan_of
from tierscale.pipeline.plan import plan as plans
from tierscale.pipeline.plan.begun import completed, kept_options, other_bytes
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.plan.policies import Budget, MaxLoss

STORED = plan_of(
    draft_of(
        tiers=(LIGHT, FULL),
        scale=Fraction(5, 2),
        tile=32,
        blend=2,
        policy=Budget(0.25),
        statistics="exact",
        source=replace(SOURCE, value_range=(1.0, 9.0), region=(0, 0, 8, 8)),
    )
)


def test_what_nobody_wrote_is_the_plans():
    found = completed(Options(), STORED)
    assert (found.scale, found.blend, found.policy) == (Fraction(5, 2), 2, Budget(0.25))
    assert found.tiers == ("light", "full") and found.value_range == (1.0, 9.0)
    assert found.exact_statistics and found.written == frozenset()


def test_what_is_written_stays_though_it_is_the_default():
    written = Options(
        scale=4, blend=4, tiers=("bicubic",), policy=MaxLoss(0.05), exact_statistics=False
    )
    assert completed(written, STORED) == replace(written, value_range=(1.0, 9.0))


@pytest.mark.parametrize(
    ("family", "written", "asked"),
    [
        (None, "auto", None),
        (None, "photo", ("bicubic", "edsr-x4-photo")),
        ("photo", "photo", None),
        ("photo", "auto", None),
        ("photo", "clean", ("bicubic", "edsr-x4", "edsr64-x4")),
        ("none", "clean", ("bicubic", "edsr-x4", "edsr64-x4")),
    ],
)
def test_a_family_that_is_written_asks_for_its_own_tiers(family, written, asked):
    stored = plan_of(draft_of(family=family, tiers=(LIGHT, FULL)))
    found = completed(Options(family=written), stored)
    assert found.tiers == (None if asked else ("light", "full"))
    assert found.tier_labels == (asked or ("light", "full"))
    note = "".join(kept_options(Options(family=written), stored))
    assert "tiers" not in note


def test_the_part_of_the_source_is_what_is_asked_for():
    """Not written it is the whole image, which is never taken for the crop of an earlier trial."""
    assert completed(Options(), STORED).region is None
    assert completed(Options(level=2), STORED).selection == Options(level=2).selection


def test_a_note_names_what_was_kept_and_what_would_be_taken_now():
    (note,) = kept_options(Options(), STORED)
    for text in (
        "scale 5/2 (by default 4)",
        "policy budget 0.25 (by default max-loss 0.05)",
        "tile 32 (by default 128)",
        "value_range 1,9 (by default from the image)",
        "exact_statistics exact (by default sample)",
    ):
        assert text in note
    (note,) = kept_options(Options(scale="5/2", tile=32, blend=2, value_range=(1, 9)), STORED)
    assert "scale" not in note and "tile" not in note and "policy budget" in note
    usual = plan_of(draft_of(tile=128, policy=MaxLoss(0.05), tiers=(LIGHT, FULL)))
    assert kept_options(Options(tiers=("light", "full")), usual) == []


@pytest.mark.parametrize(
    ("left", "words"), [(3, "goes on with {}"), (0, "nothing was written again")]
)
def test_another_bytes_version_is_told(monkeypatch, left, words):
    assert other_bytes(STORED, left) == []
    begun = plans.BYTES_VERSION
    monkeypatch.setattr(plans, "BYTES_VERSION", begun + 1)
    (note,) = other_bytes(STORED, left)
    assert f"begun with bytes_version {begun}" in note and words.format(begun + 1) in note
