"""Notes on tiers: names that stand for other weights, and what is known of foreign networks."""

from dataclasses import replace
from fractions import Fraction

import pytest

from tests.models.convert.community.networks import needs_spandrel, saved, swin
from tests.plans import FULL
from tierscale.models import registry, weights
from tierscale.models.mixed import mixed_digest, parse_mix
from tierscale.pipeline.run.tiers import effort_notes, kept_weights

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


@needs_spandrel
def test_what_is_known_of_networks_of_others_is_told(tmp_path):
    file = f"file:{saved(swin(), tmp_path / 'swin.safetensors')}"
    tier = replace(FULL, name=file, weights=registry.digest(file))
    (note,) = effort_notes([tier], Fraction(2))
    assert "authors advise against cutting" in note and "SwinIR" in note
    assert effort_notes([FULL], Fraction(4)) == ()
