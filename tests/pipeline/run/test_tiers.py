"""What the tiers of a request are, and what their cards say of them together."""

from fractions import Fraction

import pytest

from tierscale.models import registry
from tierscale.pipeline.run.tiers import family_of, load_tiers

TIERS = load_tiers(("bicubic", "fsrcnn-x4", "edsr-x4"), Fraction(4))


@pytest.mark.parametrize(
    ("families", "family"),
    [
        ((None, None, None), None),
        ((None, "clean", "clean"), "clean"),
        ((None, "photo", None), "photo"),
        ((None, "clean", "photo"), None),
    ],
)
def test_the_family_is_what_the_cards_agree_on(monkeypatch, families, family):
    named = dict(zip((tier.name for tier in TIERS), families, strict=True))
    cards = {name: {} if value is None else {"family": value} for name, value in named.items()}
    monkeypatch.setattr(registry, "card", cards.__getitem__)
    assert family_of(TIERS) == family


def test_a_network_of_a_file_has_no_card():
    assert registry.card("file:/nowhere/a.safetensors") == {}
