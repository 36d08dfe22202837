"""Scores are kept for the draft that they were found for, whatever its budget is then."""

from dataclasses import replace

import numpy as np

from tests.plans import draft_of, scored_of
from tierscale.pipeline.plan.policies import Budget
from tierscale.pipeline.plan.value_range import ValueRange
from tierscale.pipeline.run.scoring import kept_scores

DRAFT = draft_of()
SCORES = np.random.default_rng(0).random((77, 3), np.float32)


def test_scores_are_kept_for_their_draft_and_for_any_budget(tmp_path):
    value_range = ValueRange(0.0, 255.0, 0.0, 255.0, float("nan"))
    settings = ({}, {"k": 0.5}, {})
    scored = scored_of(DRAFT, SCORES, value_range=value_range, settings=settings)
    kept_scores.save(tmp_path, scored)
    other = draft_of(policy=Budget(0.3))
    found = kept_scores.load(tmp_path, other)
    assert found is not None and found.policy == Budget(0.3)
    assert found.value_range.high == 255 and np.isnan(found.value_range.nodata)
    assert found.settings == settings
    np.testing.assert_array_equal(found.scores, SCORES)


def test_scores_of_another_draft_and_what_is_torn_are_not_taken(tmp_path):
    kept_scores.save(tmp_path, scored_of(DRAFT, SCORES))
    assert kept_scores.load(tmp_path, DRAFT) is not None
    changed = replace(DRAFT.source, identity={**DRAFT.source.identity, "sha256": "cd"})
    for other in (draft_of((200, 340)), replace(DRAFT, source=changed), draft_of(scorer=None)):
        assert kept_scores.load(tmp_path, other) is None
    assert kept_scores.load(tmp_path / "nowhere", DRAFT) is None
    (tmp_path / kept_scores.NAME).write_bytes(b"torn")
    assert kept_scores.load(tmp_path, DRAFT) is None


def test_scores_are_kept_from_version_to_version():
    assert kept_scores.basis(draft_of(code="0.1.0")) == kept_scores.basis(draft_of(code="9.9.9"))
    assert kept_scores.basis(draft_of(tile=32)) != kept_scores.basis(draft_of(tile=64))
