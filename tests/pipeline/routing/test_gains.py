"""From scores to errors: by cards, corrected by probes, or as an order alone."""

import numpy as np
import pytest

from tierscale.models.contract.gains import KNOTS, Curve, Gains, Spread, TierGains
from tierscale.pipeline.routing.gains import Probed, corrected, predict, rising

LABELS = ("bicubic", "middle", "full")
SCORES = np.random.default_rng(0).exponential(1e-3, 400)


def level(value):
    return Curve((float(np.log10(value)),) * len(KNOTS))


def tier(ratio, apart):
    return TierGains(ratio, level(apart), Spread(0.4, 1.8), Spread(0.7, 1.3))


GAINS = Gains(level(2e-3), {"bicubic": tier(0.9, 5.0), "middle": tier(0.8, 2.0)})


def probes(factor, tiles=None):
    """What bicubic and the middle tier differ by, that many times what the card says."""
    tiles = np.arange(0, 400, 20) if tiles is None else tiles
    far = np.stack([5 * SCORES[tiles], 2 * SCORES[tiles], 0 * SCORES[tiles]], axis=1)
    return Probed(tuple(tiles.tolist()), factor * far)


def test_a_card_tells_the_full_tiers_error_and_what_each_loses():
    found = predict(SCORES, LABELS, GAINS)
    np.testing.assert_allclose(found.errors[:, 2], 2e-3)
    np.testing.assert_allclose(found.errors[:, 0] - 2e-3, 0.9 * 5 * SCORES)
    np.testing.assert_allclose(found.errors[:, 1] - 2e-3, 0.8 * 2 * SCORES)
    evidence = found.evidence
    assert (evidence.known, evidence.kind, evidence.probes) == ("card", "clean", ())
    assert evidence.low == (round(0.4 / 0.9, 4), 0.5, 1.0)
    assert evidence.high == (2.0, round(1.8 / 0.8, 4), 1.0)


@pytest.mark.parametrize("factor", [0.25, 1.0, 4.0])
def test_probes_correct_the_card_for_this_image(factor):
    found = predict(SCORES, LABELS, GAINS, probes(factor))
    wanted = factor * 0.9 * 5 * SCORES.sum()
    assert (found.errors[:, 0] - 2e-3).sum() == pytest.approx(wanted, rel=0.35)
    nearer = abs((found.errors[:, 0] - 2e-3).sum() - wanted)
    assert nearer <= abs(0.9 * 5 * SCORES.sum() - wanted) + 1e-9
    assert len(found.evidence.probes) == 20
    assert found.evidence.high[0] < 2.0 or factor != 1


def test_without_a_card_probes_tell_differences_and_the_full_tiers_error_counts_as_none():
    found = predict(SCORES, LABELS, None, probes(1.0))
    assert found.evidence.known == "probes"
    assert (found.errors[:, 2] == 0).all()
    assert found.errors[:, 0].sum() == pytest.approx(5 * SCORES.sum(), rel=0.35)


def test_without_either_errors_only_rank_and_fall_evenly():
    found = predict(SCORES, LABELS, None)
    assert found.evidence.known == "order"
    np.testing.assert_allclose(found.errors, np.outer(SCORES, [1, 0.5, 0]))


def test_a_network_that_makes_a_kind_worse_gains_next_to_nothing_but_may_gain():
    """On single images it may gain after all, so the upper end stays where it was measured."""
    worse = Gains(level(1e-3), {"bicubic": tier(-0.7, 5.0), "middle": tier(0.8, 2.0)})
    found = predict(SCORES, LABELS, worse)
    gained = found.errors[:, 0] - found.errors[:, 2]
    np.testing.assert_allclose(gained, 0.05 * 5 * SCORES)
    np.testing.assert_allclose(found.evidence.high[0] * gained, 1.8 * 5 * SCORES)


def test_what_is_corrected_never_falls_as_the_score_rises():
    measured = np.random.default_rng(3).exponential(1e-3, 40)  # nothing to do with the score
    tiles = np.arange(0, 400, 10)
    after, error = corrected(SCORES, 3 * SCORES, tiles, measured)
    assert (np.diff(after[np.argsort(SCORES)]) >= 0).all() and error > 0.05


def test_probes_without_anything_to_see_say_nothing_of_others():
    """Flat tiles, where results differ by rounding alone, must not scale what others differ by."""
    scores = np.concatenate([np.full(200, 1e-12), np.linspace(1e-5, 1e-3, 200)])
    tiles = np.arange(0, 400, 20)
    measured = np.where(scores[tiles] < 1e-9, 1e-10, 5 * scores[tiles])
    after, _ = corrected(scores, 5 * scores, tiles, measured)
    np.testing.assert_allclose(after[200:], 5 * scores[200:], rtol=0.05)


def test_more_noise_in_probes_is_a_wider_spread():
    tiles = np.arange(0, 400, 10)
    told = 5 * SCORES[tiles]
    noise = np.exp(np.random.default_rng(2).normal(0, 1, 40))
    _, calm = corrected(SCORES, 5 * SCORES, tiles, told)
    _, wild = corrected(SCORES, 5 * SCORES, tiles, told * noise)
    assert calm < 0.02 < wild


def test_rising_keeps_what_rises():
    scores, values = np.array([3.0, 1.0, 2.0, 4.0]), np.array([5.0, 1.0, 7.0, 6.0])
    assert rising(scores, values).tolist() == [7, 1, 7, 7]
