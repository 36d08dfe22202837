"""Curves say what was measured, on the whole and at each score."""

import numpy as np
import pytest

from tierscale.models.contract.gains import Spread
from tierscale.models.train.cards.fit import by_kind, fit_curve, gains_of, spread
from tierscale.models.train.cards.observe import Observed

RNG = np.random.default_rng(0)


def photo(index, kind="clean", ratio=1.0, factor=3.0, tiles=12):
    """A photo whose light tier is `factor` scores away from the full one, of which `ratio` gain."""
    scores = 10 ** RNG.uniform(-5, -2, tiles)
    full = 10 * scores**1.1
    far = factor * scores
    errors = np.stack([full + ratio * far, full], axis=1)
    apart = np.zeros((tiles, 2, 2))
    apart[:, 0, 1] = apart[:, 1, 0] = far
    return Observed(f"{index}.png", kind, {"s": scores}, errors, apart)


def test_a_curve_follows_what_was_measured():
    scores = 10 ** RNG.uniform(-5, -2, 4000)
    curve = fit_curve(scores, 2 * scores**1.5, np.ones(4000))
    inside = 10 ** np.linspace(-4, -3, 5)
    np.testing.assert_allclose(curve(inside), 2 * inside**1.5, rtol=0.3)
    assert curve(scores).sum() == pytest.approx((2 * scores**1.5).sum(), rel=0.25)


def test_a_curve_of_few_tiles_is_the_mean_of_all_where_there_are_none():
    curve = fit_curve(np.full(5, 1e-4), np.full(5, 3e-4), np.full(5, 1e-4))
    assert curve(np.array([1e-4])) == pytest.approx(3, rel=0.01)


def test_gains_over_differences_and_the_spread_of_photos():
    photos = [photo(index, ratio=ratio) for index, ratio in enumerate((0.5, 1.0, 1.5) * 10)]
    gains = gains_of(photos, ("light", "full"), 1, "s")
    known = gains.below["light"]
    assert known.ratio == pytest.approx(1, abs=0.15)
    assert known.apart(np.array([1e-3])) == pytest.approx(3, rel=0.02)
    assert gains.error(np.array([1e-3])) == pytest.approx(10 * 1e-3**1.1, rel=0.3)
    for ends in (known.measured, known.predicted):
        assert ends.low == pytest.approx(0.5, abs=0.2) and ends.high == pytest.approx(1.5, abs=0.3)


def test_a_measured_difference_narrows_the_spread():
    photos = [photo(index, factor=factor) for index, factor in enumerate((1.0, 2.0, 4.0) * 10)]
    known = gains_of(photos, ("light", "full"), 1, "s").below["light"]
    assert known.measured.high - known.measured.low < 0.3
    assert known.predicted.high - known.predicted.low > 0.8


def test_ends_are_shares_of_photos():
    assert spread(list(np.linspace(0, 1, 101))) == Spread(0.05, 0.95)


def test_photos_by_kind():
    photos = [photo(0, "jpeg50"), photo(0), photo(1, "jpeg50")]
    assert {kind: len(some) for kind, some in by_kind(photos).items()} == {"jpeg50": 2, "clean": 1}
