"""Drafts, scored plans and plans of images that do not exist, for tests that need no pixels."""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from tierscale.pipeline.plan.evidence import Evidence
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
from tierscale.pipeline.plan.source import SourceRef
from tierscale.pipeline.plan.stored import draft_fields, freeze
from tierscale.pipeline.plan.tiers import Tier, Weights
from tierscale.pipeline.plan.value_range import ValueRange

# One of every kind, and the budget that is shared.
POLICIES = (
    Adaptive(),
    Budget(0.3),
    Budget(0.3, shared=True),
    MaxLoss(0.02),
    Deadline(90.0),
    Threshold(1e-4),
    Full(),
    Light(),
)

EIGHT_BITS = ValueRange(0.0, 255.0, 0.0, 255.0)
LIGHT = Tier("light", "0" * 64, 1.0, 240.0, 2, 40.0)
MIDDLE = Tier("middle", "1" * 64, 1.0, 24_000.0, 8, 400.0)
FULL = Tier("full", "2" * 64, 1.0, 570_000.0, 21, 4000.0)
TIERS = (LIGHT, MIDDLE, FULL)
SOURCE = SourceRef(
    uri="/in/a.png",
    identity={"format": "png", "bytes": 1000, "sha256": "ab"},
    selection=Selection(),
    region=None,
    nodata=None,
    value_range=None,
)


def draft_of(
    size: tuple[int, int] = (200, 330), tiers: Sequence[Tier] = TIERS, **more: Any
) -> Draft:
    """A draft of an RGB image of 8 bits; more: fields that are to be others."""
    return replace(
        Draft(
            source=SOURCE,
            shape=(3, *size),
            dtype="uint8",
            colour="rgb",
            alpha=None,
            scale=Fraction(4),
            tile=32,
            blend=4,
            tiers=tuple(tiers),
            policy=Budget(0.5),
            statistics=None,
            device="cpu",
            batch=(1,) * len(tiers),
            scoring="difference",
            scorer=Weights("scorer", "c" * 64),
            code="test",
        ),
        **more,
    )


def exact(tiers: int) -> Evidence:
    """Evidence of predicted errors that are known exactly."""
    return Evidence("card", "clean", (1.0,) * tiers, (1.0,) * tiers)


def scored_of(draft: Draft, scores: np.ndarray, **more: Any) -> ScoredPlan:
    """The draft with scores (tiles, tiers); more: fields that are to be others."""
    known = {
        **draft_fields(draft),
        "value_range": EIGHT_BITS,
        "settings": ({},) * len(draft.tiers),
        "scores": scores,
        "evidence": exact(len(draft.tiers)),
    }
    return ScoredPlan(**{**known, **more})


def plan_of(draft: Draft, routes: np.ndarray | None = None, **more: Any) -> Plan:
    """The plan of a draft; routes (rows, columns): all full where they are not given."""
    if routes is None:
        routes = np.full(draft.grid.tiles, draft.full)
    scores = np.zeros((routes.size, len(draft.tiers)), np.float32)
    return freeze(scored_of(draft, scores, **more), routes)
