"""From the scores of an image's tiles to the error that each tier is predicted to leave on them.

What a tier loses against the full tier is the squared difference of their results times what the
card of the full tier says of its kind of picture: gains over differences. The difference itself is
the card's curve over the score, corrected by probes of this image where there are some.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tierscale.models.contract.gains import LEAST, Gains, Spread
from tierscale.pipeline.plan.evidence import Evidence

# Probes in one group, whose mean decides; and the weight, in probes, of what was known before.
GROUP, BEFORE = 8, 1.0
# Squared differences of a twentieth of a level are none.
NONE = (0.05 / 255) ** 2
# Where a network gains nothing on a kind of picture, or loses, this ratio keeps tiles in order.
SMALLEST = 0.05
# Of a normal distribution, 5 and 95 % lie so many standard deviations beside the mean.
NINETY = 1.645


@dataclass(frozen=True, slots=True)
class Probed:
    """Tiles that all tiers were run on.

    tiles: their indices, rising, (n,). apart: mean squared differences of each tier's result from
    that of the full tier, values 0..1, (n, tiers).
    """

    tiles: tuple[int, ...]
    apart: np.ndarray


@dataclass(frozen=True, slots=True)
class Prediction:
    """errors: mean squared error of each tile under each tier, values 0..1, (tiles, tiers)."""

    errors: np.ndarray
    evidence: Evidence


def predict(
    scores: np.ndarray,
    labels: Sequence[str],
    gains: Gains | None,
    probed: Probed | None = None,
    kind: str = "clean",
) -> Prediction:
    """Errors and what they rest on, from scores (tiles,), at least 0.

    labels: tiers from light to full. gains: what the card of the full tier says; None: nothing.
    Without it, the error of the full tier counts as 0, and what a tier loses as the difference that
    probes show; without probes too, as a share of the score that falls evenly, which only ranks.
    """
    full = len(labels) - 1
    before = np.empty((len(scores), full))
    spreads = [Spread(0.0, np.inf) for _ in range(full)]
    for index in range(full):
        before[:, index] = _before(scores, labels, index, gains)
        if probed is not None:
            measured = probed.apart[:, index]
            before[:, index], error = corrected(scores, before[:, index], probed.tiles, measured)
            spreads[index] = Spread(max(0.0, 1 - NINETY * error), 1 + NINETY * error)
    base = np.zeros(len(scores))
    if gains is not None:
        base = gains.error(scores)
        known = [gains.below[label] for label in labels[:full]]
        before = before * np.array([max(tier.ratio, SMALLEST) for tier in known])
        spreads = [
            _relative(tier.predicted, tier.ratio)
            if probed is None
            else _joined(_relative(tier.measured, tier.ratio), spread)
            for tier, spread in zip(known, spreads, strict=True)
        ]
    errors = np.concatenate([base[:, None] + before, base[:, None]], axis=1)
    evidence = Evidence(
        "card" if gains is not None else "probes" if probed is not None else "order",
        kind,
        (*(round(spread.low, 4) for spread in spreads), 1.0),
        (*(round(spread.high, 4) for spread in spreads), 1.0),
        () if probed is None else probed.tiles,
    )
    return Prediction(errors, evidence)


def _before(
    scores: np.ndarray, labels: Sequence[str], index: int, gains: Gains | None
) -> np.ndarray:
    """The difference of a tier from the full tier, as far as it is known without this image."""
    if gains is None:
        full = len(labels) - 1
        return scores * (full - index) / full
    curve = gains.below[labels[index]].apart
    return rising(scores, scores * curve(scores))


def corrected(
    scores: np.ndarray, before: np.ndarray, tiles: Sequence[int], measured: np.ndarray
) -> tuple[np.ndarray, float]:
    """A rising curve through what was measured on some tiles, and its relative standard error.

    before: the differences (tiles,) that were expected. They are scaled, group by group of like
    scores, to what was measured, (n,), and straight in logarithms between the groups' middles.
    """
    places = np.asarray(tiles)
    order = np.argsort(scores[places], kind="stable")
    groups = np.array_split(order, max(1, len(order) // GROUP))
    middles, logs = [], []
    for group in groups:
        told, found = before[places[group]].mean(), measured[group].mean()
        share = len(group) / (BEFORE + len(group))
        middles.append(np.log(np.maximum(scores[places[group]], LEAST)).mean())
        logs.append(share * np.log((found + NONE) / (told + NONE)))
    factor = np.exp(np.interp(np.log(np.maximum(scores, LEAST)), middles, logs))
    after = rising(scores, before * factor)
    left = measured - after[places]
    spread = float(left.std()) / max(float(measured.mean()), NONE) / len(places) ** 0.5
    return after, spread


def rising(scores: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values (n,) that never fall as the scores (n,) rise: each at least those of lower scores."""
    order = np.argsort(scores, kind="stable")
    result = np.empty_like(values)
    result[order] = np.maximum.accumulate(values[order])
    return result


def _relative(spread: Spread, ratio: float) -> Spread:
    """Times what is predicted with a ratio of gains to differences."""
    least = max(ratio, SMALLEST)
    return Spread(spread.low / least, spread.high / least)


def _joined(one: Spread, other: Spread) -> Spread:
    """The spread of a product of two unknowns that have nothing to do with each other."""
    low = np.hypot(1 - min(one.low, 1.0), 1 - other.low)
    high = np.hypot(max(one.high, 1.0) - 1, other.high - 1)
    return Spread(float(1 - low), float(1 + high))
