"""What a stored plan and a new request disagree in, in words that name both."""

from dataclasses import replace
from fractions import Fraction

import pytest

from tests.plans import FULL, LIGHT, MIDDLE, SOURCE, TIERS, draft_of, plan_of
from tierscale.pipeline.plan.differences import SHOWN, differences, outdated
from tierscale.pipeline.plan.policies import Adaptive, Budget, Full

DRAFT = draft_of()
STORED = plan_of(DRAFT)


def source(**more):
    return replace(SOURCE, **more)


def test_the_same_request_differs_in_nothing():
    assert differences(STORED, draft_of()) == []


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"tile": 64}, "tile 32, now 64"),
        ({"blend": 2}, "blend 4, now 2"),
        ({"scale": Fraction(5, 2)}, "scale 4, now 5/2"),
        ({"policy": Adaptive()}, "policy budget 0.5, now adaptive"),
        ({"policy": Budget(0.25)}, "policy budget 0.5, now budget 0.25"),
        ({"policy": Budget(0.5, shared=True)}, "policy budget 0.5, now budget 0.5 of the archive"),
        ({"device": "cuda"}, "device cpu, now cuda"),
        ({"statistics": "exact"}, "statistics none, now exact"),
        ({"dtype": "uint16"}, "dtype uint8, now uint16"),
        ({"colour": "channels"}, "colour rgb, now channels"),
        ({"alpha": "straight"}, "alpha none, now straight"),
        (
            {"tiers": (LIGHT, FULL)},
            "tiers light@1#00000000, middle@1#11111111, full@1#22222222,"
            " now light@1#00000000, full@1#22222222",
        ),
        (
            {"tiers": (LIGHT, replace(MIDDLE, effort=0.5), replace(FULL, auto=True))},
            "tiers light@1#00000000, middle@1#11111111, full@1#22222222,"
            " now light@1#00000000, middle@0.5#11111111, full@auto#22222222",
        ),
        (
            {"source": source(region=(0, 0, 10, 10))},
            "source region None, now region [0, 0, 10, 10]",
        ),
        ({"source": source(nodata=7.0)}, "source nodata None, now nodata 7.0"),
    ],
)
def test_each_difference_is_reported_with_both_values(more, text):
    assert differences(STORED, draft_of(**more)) == [text]


def test_all_differences_are_reported():
    found = differences(STORED, draft_of(tile=64, blend=2, policy=Full()))
    assert [text.split()[0] for text in found] == ["tile", "blend", "policy"]


def test_only_what_changed_of_the_source_is_shown():
    changed = {**SOURCE.identity, "sha256": "cd"}
    (text,) = differences(STORED, draft_of(source=source(identity=changed)))
    assert text.startswith("source identity ") and "selection" not in text


def test_a_long_value_is_cut():
    many = tuple(replace(LIGHT, name=f"tier{index}") for index in range(60))
    (text,) = differences(STORED, draft_of(tiers=many))
    assert len(text) <= 2 * SHOWN + len("tiers , now ") and text.endswith("…")


@pytest.mark.parametrize(
    "more",
    [
        {"code": "0.0.0"},
        {"batch": (4, 4, 4)},
        {"bytes_version": 7},
        {"scoring": "energy", "scorer": None},
        {"tiers": tuple(replace(tier, cost=tier.cost + 1, memory=1.0) for tier in TIERS)},
        {"source": source(uri="/elsewhere/a.png")},
    ],
)
def test_what_follows_from_the_code_or_where_a_source_lies_is_no_difference(more):
    assert differences(STORED, draft_of(**more)) == []


def test_a_plan_is_outdated_where_only_the_files_content_is_another():
    changed = source(identity={**SOURCE.identity, "sha256": "cd"})
    assert outdated(STORED, draft_of(source=changed))
    assert outdated(STORED, draft_of((100, 110), source=changed, dtype="uint16"))
    assert not outdated(STORED, draft_of(source=changed, tile=64))
    assert not outdated(STORED, draft_of(source=replace(changed, uri="/in/b.png")))
    assert not outdated(STORED, draft_of(source=replace(changed, region=(0, 0, 9, 9))))
