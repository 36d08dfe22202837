"""Weights of stored plans: a note where their names stand for others by now."""

from dataclasses import replace

import pytest

from tests.plans import FULL
from tierscale.models import registry, weights
from tierscale.models.mixed import mixed_digest, parse_mix
from tierscale.pipeline.run.tiers import kept_weights

MIX = "edsr-x4*0.3+edsr-x4-photo*0.7"
NEWEST = weights.newest("edsr-x4")
(OLDER, *_) = [digest for digest in weights.stored("edsr-x4") if digest != NEWEST]
OLDER_MIX = mixed_digest(parse_mix(MIX), [OLDER, weights.newest("edsr-x4-photo")])


@pytest.mark.parametrize(
    ("name", "digest", "told"),
    [
        ("edsr-x4", OLDER, True),
        ("edsr-x4+8", OLDER, True),
        ("edsr-x4", NEWEST, False),
        (MIX, OLDER_MIX, True),
        (MIX, registry.digest(MIX), False),
        # missing_weights() tells of networks that are gone, and files are looked at elsewhere.
        ("gone-x4", OLDER, False),
        ("gone-x4*0.5+edsr-x4*0.5", OLDER, False),
        ("file:mine.safetensors", OLDER, False),
        ("bicubic", registry.digest("bicubic"), False),
    ],
)
def test_names_that_stand_for_other_weights_are_told(name, digest, told):
    notes = kept_weights([replace(FULL, name=name, weights=digest)])
    assert len(notes) == told
    assert all(f"({digest[:8]})" in note for note in notes)
