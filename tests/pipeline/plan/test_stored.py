"""Plans as JSON: whole or refused, readable in every format that was released."""

import json
import tarfile
from dataclasses import FrozenInstanceError, fields, replace
from fractions import Fraction

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.plans import FULL, LIGHT, POLICIES, SOURCE, TIERS, draft_of, plan_of, scored_of
from tierscale.models.contract.kind import Kind
from tierscale.pipeline.plan.evidence import Audit, Evidence
from tierscale.pipeline.plan.options import Selection
from tierscale.pipeline.plan.plan import Draft, Plan, ScoredPlan
from tierscale.pipeline.plan.policies import (
    Adaptive,
    Budget,
    Deadline,
    Full,
    Light,
    MaxLoss,
    Threshold,
)
from tierscale.pipeline.plan.stored import (
    FORMAT,
    digest_of,
    draft_document,
    freeze,
    plan_from_json,
    plan_to_json,
    with_digest,
)
from tierscale.pipeline.plan.tiers import Weights
from tierscale.pipeline.plan.value_range import ValueRange

ROUTES = np.random.default_rng(0).integers(0, 3, draft_of().grid.tiles)
PLAN = plan_of(draft_of(), ROUTES, settings=({}, {"k": 0.25}, {"t": 0.5, "u": 1.0}))


def again(document):
    """What a program reads that was written by another."""
    return json.loads(json.dumps(document, allow_nan=False))


def same(one, other):
    """Whether all fields are equal, not only the digests."""
    for field in fields(Plan):
        mine, theirs = getattr(one, field.name), getattr(other, field.name)
        if field.name in ("source", "value_range"):  # a no-data value of NaN equals no other
            mine, theirs = mine.to_json(), theirs.to_json()
        np.testing.assert_equal(mine, theirs, field.name)
    return True


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_a_plan_comes_back_as_it_was_stored(policy):
    plan = with_digest(replace(PLAN, policy=policy))
    found = plan_from_json(again(plan_to_json(plan)))
    assert same(found, plan) and found == plan
    assert found.routes.dtype == np.int64


@pytest.mark.parametrize(
    "more",
    [
        {"scale": Fraction(27, 10), "tile": 130},
        {"alpha": "premultiplied", "colour": "rgba", "shape": (4, 200, 330)},
        {"statistics": "sample", "tiers": (LIGHT, replace(FULL, auto=True)), "batch": (4, 4)},
        {"scoring": "none", "scorer": None},
        {
            "source": replace(
                SOURCE,
                selection=Selection(2, 1, 3, 4),
                region=(1, 2, 330, 200),
                nodata=float("nan"),
                value_range=(0.5, 2.5),
            )
        },
    ],
)
def test_every_field_of_a_draft_comes_back(more):
    plan = plan_of(draft_of(**more))
    assert same(plan_from_json(again(plan_to_json(plan))), plan)


def test_a_range_with_infinite_bounds_and_nan_comes_back():
    value_range = ValueRange(-1.0, 1.0, -np.inf, np.inf, float("nan"))
    plan = plan_of(draft_of(dtype="float32"), value_range=value_range)
    assert same(plan_from_json(again(plan_to_json(plan))), plan)


def test_a_document_that_was_changed_is_refused():
    stored = again(plan_to_json(PLAN))
    names = set(stored) - {"digest", "uri"}
    assert len(names) > 20
    for name in names:
        with pytest.raises(ValueError, match="the stored plan was changed: its content has digest"):
            plan_from_json({**stored, name: "another"})


def test_the_place_of_the_source_is_no_part_of_the_digest_and_the_digest_of_itself_neither():
    stored = again(plan_to_json(PLAN))
    moved = plan_from_json({**stored, "uri": "/elsewhere/a.png"})
    assert moved.source.uri == "/elsewhere/a.png" and moved == PLAN
    assert digest_of(stored) == digest_of({**stored, "digest": ""}) == PLAN.digest


def test_all_that_pixels_depend_on_is_in_the_digest():
    changes = {
        "source": replace(SOURCE, identity={**SOURCE.identity, "sha256": "cd"}),
        "shape": (3, 200, 331),
        "dtype": "uint16",
        "colour": "channels",
        "alpha": "straight",
        "scale": Fraction(2),
        "tile": 64,
        "blend": 3,
        "tiers": TIERS[::-1],
        "policy": Budget(0.31),
        "statistics": "exact",
        "device": "cuda",
        "precision": "cuda",
        "batch": (1, 1, 2),
        "scoring": "energy",
        "scorer": Weights("other", "d" * 64),
        "family": "photo",
        "kind": Kind(0.5, 7.0, 55),
        "code": "0.0.0",
        "bytes_version": 7,
        "value_range": ValueRange(0.0, 254.0, 0.0, 255.0),
        "settings": ({}, {"k": 0.26}, {"t": 0.5, "u": 1.0}),
        "routes": 2 - ROUTES,
        "evidence": Evidence("probes", "jpeg50", (0.5, 1.0), (2.0, 1.0), (3, 8)),
        "audit": Audit(0.03, 0.02, 0.04, 17),
    }
    assert set(changes) | {"digest"} == {field.name for field in fields(Plan)}
    digests = {
        name: with_digest(replace(PLAN, **{name: value})).digest for name, value in changes.items()
    }
    assert len({PLAN.digest, *digests.values()}) == 1 + len(changes), digests


def test_plans_are_equal_and_hash_by_their_digest():
    other = plan_of(draft_of(), ROUTES, settings=PLAN.settings)
    assert other is not PLAN and other == PLAN and len({other, PLAN}) == 1
    less = ROUTES.copy()
    less[0, 0] = (less[0, 0] + 1) % 3
    assert plan_of(draft_of(), less, settings=PLAN.settings) != PLAN
    assert PLAN.digest != PLAN


def test_drafts_are_compared_by_their_fields_and_scored_plans_by_nothing():
    assert draft_of() == draft_of() != draft_of(tile=64)
    assert hash(draft_of()) == hash(draft_of())
    scores = np.zeros((77, 3), np.float32)
    scored, other = scored_of(draft_of(), scores), scored_of(draft_of(), scores + 1)
    assert scored != other and len({scored, other}) == 2
    assert scored == scored and draft_of() != scored


def test_a_plan_has_all_of_its_draft_and_is_never_changed():
    scored = scored_of(draft_of(), np.zeros((77, 3), np.float32))
    plan = freeze(scored, ROUTES)
    for field in fields(Draft):
        assert getattr(plan, field.name) == getattr(scored, field.name)
    assert issubclass(Plan, Draft) and issubclass(ScoredPlan, Draft)
    with pytest.raises(FrozenInstanceError):
        plan.tile = 64


def test_a_format_that_is_not_known_yet_is_refused_with_the_number():
    document = {**again(plan_to_json(PLAN)), "format": FORMAT + 1, "new": ["field"]}
    document["digest"] = digest_of(document)
    with pytest.raises(
        ValueError, match=rf"has format {FORMAT + 1}, and this version .* reads up to {FORMAT}; ins"
    ):
        plan_from_json(document)


def test_a_draft_of_any_of_the_three_types_has_one_document():
    draft = draft_of()
    scored = scored_of(draft, np.zeros((77, 3), np.float32))
    assert draft_document(draft) == draft_document(scored) == draft_document(freeze(scored, ROUTES))


# Format 1: what version 0.1 stored, with no number.


def old_document(policy):
    """A plan of version 0.1 with the same content as PLAN."""
    now = again(plan_to_json(PLAN))
    name, parameters = policy
    known = {"budget": None, "pooled": False, "lose": None, "deadline": None, "threshold": None}
    document = {
        key: now[key]
        for key in (
            *("uri", "source", "shape", "dtype", "colour", "alpha", "scale", "tile", "blend"),
            *("tiers", "device", "batch", "code", "routes"),
        )
    }
    document |= {
        "policy": {
            "name": name,
            **known,
            **parameters,
            "statistics": None,
            "scout": "c" * 64,
        },
        "threads": 1,
        "scores": now["scoring"],
        "levels": now["value_range"],
        "given": now["settings"],
    }
    return {**document, "digest": digest_of(document)}


@pytest.mark.parametrize(
    ("old", "policy"),
    [
        (("dearest", {}), Full()),
        (("cheapest", {}), Light()),
        (("adaptive", {}), Adaptive()),
        (("budget", {"budget": 0.3}), Budget(0.3)),
        (("budget", {"budget": 0.3, "pooled": True}), Budget(0.3, shared=True)),
        (("quality", {"lose": 0.02}), MaxLoss(0.02)),
        (("deadline", {"deadline": 60.0}), Deadline(60.0)),
        (("threshold", {"threshold": 1e-4}), Threshold(1e-4)),
    ],
    ids=str,
)
def test_a_plan_of_version_0_1_is_read_and_keeps_its_digest(old, policy):
    document = old_document(old)
    plan = plan_from_json(document)
    assert plan.digest == document["digest"] and plan.policy == policy
    assert plan.bytes_version == 1
    unlike = {"digest": "", "policy": Full(), "scorer": None, "evidence": None, "bytes_version": 1}
    assert same(replace(plan, **unlike), replace(PLAN, **unlike))


def test_a_plan_whose_tiles_a_scout_scored_is_read_and_keeps_its_digest():
    now = again(plan_to_json(PLAN))
    gone = {"digest", "scorer", "evidence", "audit"}
    document = {key: value for key, value in now.items() if key not in gone}
    document |= {"format": 2, "scoring": "scout", "scout": "c" * 64}
    plan = plan_from_json({**document, "digest": digest_of(document)})
    assert plan.digest == digest_of(document)
    assert (plan.scoring, plan.scorer, plan.evidence, plan.audit) == ("scout", None, None, None)
    assert plan.knows_errors


def test_a_plan_of_version_0_1_that_was_changed_is_refused():
    document = old_document(("dearest", {}))
    with pytest.raises(ValueError, match="was changed"):
        plan_from_json({**document, "given": []})


def test_plans_that_version_0_1_wrote_are_read():
    read = []
    with tarfile.open(ROOT / "tests/golden/version_0_1.tar.gz") as tar:
        for member in tar.getmembers():
            if member.name.endswith("plan.json"):
                document = json.load(tar.extractfile(member))
                plan = plan_from_json(document)
                assert plan.digest == document["digest"]
                assert plan.routes.shape == plan.grid.tiles
                read.append(plan)
    assert len(read) >= 2
