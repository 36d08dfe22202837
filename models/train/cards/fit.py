"""From observed tiles to what a card says of routing to its network.

A curve is the ratio of sums over the tiles around each knot, so that what it predicts for many
tiles adds up to what was measured.
"""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from tierscale.models.contract.gains import KNOTS, Curve, Gains, Spread, TierGains
from tierscale.models.train.cards.observe import Observed

# Tiles that must lie around a knot for it to have a value of its own; rounds of the fit; and what
# counts as nothing.
FEW, ROUNDS, TINY = 3.0, 300, 1e-15
# Shares of photos below the ends of a spread.
ENDS = (0.05, 0.95)
# A difference below this, a hundredth of a level squared, is none.
NONE = (0.01 / 255) ** 2


def fit_curve(scores: np.ndarray, above: np.ndarray, below: np.ndarray) -> Curve:
    """The ratio of two quantities of tiles (n,), at least 0, over the tiles' scores (n,).

    Around each knot, and on the whole, what the curve predicts of `above` adds up to it:
    generalized iterative scaling (Darroch and Ratcliff 1972) of a log-linear model whose features
    are the hat functions of the knots.
    """
    where, knots = np.log10(np.clip(scores, KNOTS[0], KNOTS[-1])), np.log10(KNOTS)
    used = _hats(where, knots).sum(axis=0) >= FEW
    if not used.any():
        used[np.abs(knots - np.median(where)).argmin()] = True
    hats = _hats(where, knots[used])
    whole = max(float(above.sum()), TINY) / max(float(below.sum()), TINY)
    logs = np.full(int(used.sum()), np.log(whole))
    wanted = np.maximum(hats.T @ above, TINY)
    for _ in range(ROUNDS):
        logs += np.log(wanted / np.maximum(hats.T @ (np.exp(hats @ logs) * below), TINY))
    values = np.interp(knots, knots[used], logs) / np.log(10)
    return Curve(tuple(np.round(values, 3).tolist()))


def _hats(where: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """How much of each tile (n,) each knot has, (n, knots), linear between two knots."""
    return np.stack([np.interp(where, knots, unit) for unit in np.eye(len(knots))], axis=1)


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
            spread([told(one, index, full, (curve, error, score), by) for one in observed])
            for by in ("curve", "measured")
        ]
        below[name] = TierGains(round(ratio, 4), curve, *spreads)
    return Gains(error, below)


def told(one: Observed, index: int, full: int, known: tuple[Curve, Curve, str], by: str) -> float:
    """What ratio of gains to differences would have told the true relative loss of a photo.

    By tier `index`. known: curve of differences, curve of errors, and score. by: what tells the
    difference, "curve" or "measured".
    """
    curve, error, score = known
    scores = one.scores[score]
    gained = float((one.errors[:, index] - one.errors[:, full]).sum())
    far = scores * curve(scores) if by == "curve" else one.apart[:, index, full]
    true = gained / max(float(one.errors[:, full].sum()), NONE)
    return true * float(error(scores).sum()) / max(float(far.sum()), NONE)


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
