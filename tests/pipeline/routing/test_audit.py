"""What routes lose: nothing where all is full, more at the upper end, in dB only with a card."""

from dataclasses import replace

import numpy as np
import pytest

from tests.plans import TIERS, draft_of, scored_of
from tierscale.pipeline.plan.evidence import Audit, Evidence
from tierscale.pipeline.plan.policies import MaxLoss
from tierscale.pipeline.routing.audit import at_most, audit_of, loss_db
from tierscale.pipeline.routing.costs import areas
from tierscale.pipeline.routing.routes import route

EVIDENCE = Evidence("card", "clean", (0.5, 0.8, 1.0), (2.0, 1.2, 1.0), tuple(range(0, 64, 4)))
DRAFT = draft_of((256, 256))


def scored(evidence=EVIDENCE, policy=MaxLoss(0.05)):  # noqa: B008
    full = np.full(64, 1e-3)
    errors = np.stack([full + np.linspace(0, 2e-4, 64), full + np.linspace(0, 5e-5, 64), full], 1)
    draft = replace(DRAFT, policy=policy)
    return replace(scored_of(draft, errors.astype(np.float32)), evidence=evidence)


def test_an_audit_tells_the_loss_between_its_ends():
    plan, routes = scored(), np.zeros((8, 8), int)
    audit = audit_of(plan, routes)
    assert audit is not None and audit.tiles == 16
    assert audit.loss_db == pytest.approx(10 * np.log10(1.1), abs=1e-3)
    assert audit.low == pytest.approx(10 * np.log10(1.05), abs=1e-3)
    assert audit.high == pytest.approx(10 * np.log10(1.2), abs=1e-3)


@pytest.mark.parametrize("known", ["probes", "order"])
def test_without_a_card_no_loss_is_told_in_db(known):
    assert audit_of(scored(replace(EVIDENCE, known=known)), np.zeros((8, 8), int)) is None


def test_nothing_is_lost_by_the_full_tier_or_one_tier():
    assert audit_of(scored(), np.full((8, 8), 2)) is None
    draft = draft_of((256, 256), TIERS[:1])
    one = scored_of(draft, np.ones((64, 1), np.float32))
    assert audit_of(one, np.zeros((8, 8), int)) is None


def test_the_largest_loss_is_held_at_the_upper_end():
    plan = scored()
    routes = route(plan)
    upper = loss_db(plan, at_most(plan.scores.astype(np.float64), plan.evidence), routes)
    audit = audit_of(plan, routes)
    assert audit is not None and audit.high == pytest.approx(upper, abs=1e-4)
    assert 0.03 < audit.high <= 0.05 + 1e-6
    surer = replace(EVIDENCE, low=(1.0,) * 3, high=(1.0,) * 3)
    assert (route(scored(surer)) == 2).sum() < (routes == 2).sum()


def test_a_loss_is_that_of_pixels_and_not_of_tiles():
    draft = draft_of((64, 40))  # tiles of 32x32 and 32x8
    errors = np.array([[2.0, 1, 1], [1, 1, 1]] * 2)
    routes = np.zeros(4, int)
    assert loss_db(draft, errors, routes) == pytest.approx(10 * np.log10(1.8))
    assert areas(draft).tolist() == [1024, 256] * 2


def test_an_audit_in_words():
    audit = Audit(0.0312, 0.02, 0.041, 64)
    assert audit.in_words("edsr64-x4") == (
        "0.031 dB below edsr64-x4 everywhere (0.020 to 0.041, measured on 64 tiles)"
    )
    assert "by the network's card" in replace(audit, tiles=0).in_words("a")
