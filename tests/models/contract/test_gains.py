"""What cards say of routing: read as it was written, and for the measured weights alone."""

import json

import numpy as np
import pytest

from tierscale.models import weights as zoo
from tierscale.models.contract.gains import (
    KNOTS,
    Curve,
    Gains,
    Spread,
    TierGains,
    gains_to_json,
    kinds,
    nearest_kind,
    read_gains,
)
from tierscale.models.contract.kind import Kind

RISING = Curve(tuple(np.linspace(-2, 1, len(KNOTS))))
GAINS = Gains(RISING, {"light": TierGains(0.9, RISING, Spread(0.5, 1.5), Spread(0.8, 1.2))})
DIGESTS = {"score": "a" * 64, "light": "b" * 64, "full": "c" * 64}
CARD = {
    "routing": {
        "weights": {name: digest[:12] for name, digest in DIGESTS.items()},
        "kinds": {"clean": {"score": gains_to_json(GAINS)}, "jpeg50": {}},
    }
}


def test_a_card_is_read_as_it_was_written():
    card = json.loads(json.dumps(CARD))
    assert read_gains(card, DIGESTS, "score") == GAINS
    assert kinds(card) == ("clean", "jpeg50") and kinds({}) == ()


@pytest.mark.parametrize(
    ("card", "digests", "score", "kind"),
    [
        ({}, DIGESTS, "score", "clean"),
        (CARD, DIGESTS, "energy", "clean"),
        (CARD, DIGESTS, "score", "grain8"),
        (CARD, DIGESTS, "score", "jpeg50"),
        (CARD, {**DIGESTS, "light": "d" * 64}, "score", "clean"),
        (CARD, {**DIGESTS, "other": "d" * 64}, "score", "clean"),
    ],
)
def test_what_was_not_measured_is_not_known(card, digests, score, kind):
    assert read_gains(card, digests, score, kind) is None


def test_a_curve_is_straight_in_logarithms_and_level_beyond_its_ends():
    curve = Curve(tuple(np.log10(KNOTS)))
    scores = np.array([[1e-12, 1e-7], [2e-5, 5.0]])
    np.testing.assert_allclose(curve(scores), [[1e-7, 1e-7], [2e-5, 1e-1]], rtol=1e-9)
    with pytest.raises(ValueError, match="needs 13 values, not 2"):
        Curve((0.0, 1.0))


@pytest.mark.parametrize("name", [name for name in zoo.networks() if kinds(zoo.card(name))])
def test_cards_of_the_zoo_are_of_the_weights_of_the_zoo(name):
    """Else they are not used: `python -m tierscale.models.train.cards` measures them again."""
    known = zoo.card(name)["routing"]["weights"]
    assert known[name] == zoo.newest(name)[:12]
    others = set(known) & set(zoo.networks())
    assert {other: known[other] for other in others} == {
        other: zoo.newest(other)[:12] for other in others
    }


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (None, "clean"),
        (Kind(0.2, 1.0, None), "clean"),
        (Kind(0.2, 1.0, 94), "clean"),
        (Kind(0.0, 0.5, 55), "jpeg50"),
        (Kind(0.0, 7.0, None), "grain8"),
        (Kind(0.1, 9.0, 62), "grain8+jpeg60"),
        (Kind(1.2, 0.5, 60), "blur1+jpeg60"),
    ],
)
def test_the_known_kind_that_is_most_like_a_picture(kind, name):
    known = ("clean", "jpeg50", "grain8", "grain8+jpeg60", "blur1+jpeg60")
    assert nearest_kind(kind, known) == name
    assert nearest_kind(kind, ()) == "clean"
