"""From observed tiles to what a card says of routing to its network.

A curve is the ratio of sums over the tiles around a knot, so that what it predicts for many tiles
adds up to what was measured; it is smoothed by its neighbours, because few tiles lie at the ends.
"""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from tierscale.models.contract.gains import KNOTS, LEAST, Curve, Gains, Spread, TierGains
from tierscale.models.train.cards.observe import Observed

# Width of the tiles around a knot, in decades, as a standard deviation; and the weight, in tiles,
# with which the whole set speaks where there are few.
WIDTH, FEW = 0.35, 3.0
# Shares of photos below the ends of a spread.
ENDS = (0.05, 0.95)
# A difference below this, a hundredth of a level squared, is none.
NONE = (0.01 / 255) ** 2


def fit_curve(scores: np.ndarray, above: np.ndarray, below: np.ndarray) -> Curve:
    """The ratio of two quantities of tiles (n,), over the tiles' scores (n,)."""
    logs = np.log10(np.maximum(scores, LEAST))
    whole = above.sum() / max(below.sum(), LEAST)
    values = []
    for knot in np.log10(KNOTS):
        near = np.exp(-0.5 * ((logs - knot) / WIDTH) ** 2)
        # Tiles count alike however large their values are, so that the few of the whole set that
        # speak where there are none do not drown.
        scale = float(near @ below) / max(float(near.sum()), 1e-12)
        total = float(near @ above) + FEW * scale * whole * 0.1
        values.append(total / max(float(near @ below) + FEW * scale * 0.1, LEAST**2))
    return Curve(tuple(round(float(np.log10(max(value, 1e-12))), 3) for value in values))


def gains_of(observed: Sequence[Observed], tiers: Sequence[str], full: int, score: str) -> Gains:
    """What the card of tier `full` says of the lighter ones; observed: photos of one kind."""
    scores = np.concatenate([one.scores[score] for one in observed])
    errors = np.concatenate([one.errors for one in observed])
    apart = np.concatenate([one.apart for one in observed])
    error = fit_curve(scores, errors[:, full], np.ones(len(scores)))
    below = {}
    for index, name in enumerate(tiers[:full]):
        far = apart[:, index, full]
        ratio = float((errors[:, index] - errors[:, full]).sum() / max(far.sum(), NONE))
        curve = fit_curve(scores, far, scores)
        spreads = [
            spread([told(one, index, full, (ratio, curve, error, score), by) for one in observed])
            for by in ("curve", "measured")
        ]
        below[name] = TierGains(round(ratio, 4), curve, *spreads)
    return Gains(error, below)


def told(
    one: Observed, index: int, full: int, known: tuple[float, Curve, Curve, str], by: str
) -> float:
    """The true relative loss of a photo by tier `index` over the predicted one.

    known: ratio, curve of differences, curve of errors, and score. by: "curve" or "measured".
    """
    ratio, curve, error, score = known
    scores = one.scores[score]
    gained = float((one.errors[:, index] - one.errors[:, full]).sum())
    far = scores * curve(scores) if by == "curve" else one.apart[:, index, full]
    true = gained / max(float(one.errors[:, full].sum()), NONE)
    predicted = ratio * float(far.sum()) / float(error(scores).sum())
    return true / predicted if abs(predicted) > 1e-9 else 1.0


def spread(ratios: Sequence[float]) -> Spread:
    """The ends between which most photos lie."""
    low, high = np.quantile(ratios, ENDS)
    return Spread(round(float(low), 4), round(float(high), 4))


def by_kind(observed: Sequence[Observed]) -> Mapping[str, list[Observed]]:
    """Photos by kind, in the order of the first of each."""
    order = list(dict.fromkeys(one.kind for one in observed))
    grouped = itertools.groupby(sorted(observed, key=lambda one: order.index(one.kind)), key=_kind)
    return {kind: list(some) for kind, some in grouped}


def _kind(one: Observed) -> str:
    return one.kind
