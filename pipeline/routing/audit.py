"""What routes lose against the full tier everywhere, with error bars and without a truth."""

import numpy as np

from tierscale.pipeline.plan.evidence import Audit, Evidence
from tierscale.pipeline.plan.plan import Draft, ScoredPlan
from tierscale.pipeline.routing.costs import areas

# Errors are at least this, 120 dB.
LEAST = 1e-12


def at_most(errors: np.ndarray, evidence: Evidence) -> np.ndarray:
    """Errors (tiles, tiers) with what each tier loses at the upper end of what is known of it."""
    return _times(errors, np.array(evidence.high))


def _times(errors: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Errors with what each tier loses against the full tier times a factor, (tiers,)."""
    full = errors[:, -1:]
    scaled: np.ndarray = full + (errors - full) * factors
    return scaled


def loss_db(draft: Draft, errors: np.ndarray, routes: np.ndarray) -> float:
    """dB that routes, of any shape with as many tiles, lose against the full tier everywhere.

    errors: predicted, (tiles, tiers).
    """
    weights = areas(draft)
    chosen = np.take_along_axis(errors, routes.reshape(-1, 1), axis=1)[:, 0]
    left, best = float(weights @ chosen), float(weights @ errors[:, -1])
    return 10 * float(np.log10(max(left, LEAST) / max(best, LEAST)))


def audit_of(scored: ScoredPlan, routes: np.ndarray) -> Audit | None:
    """What routes of a scored image lose; None: nothing is lost by them, or no card knows dB."""
    evidence, errors = scored.evidence, scored.scores.astype(np.float64)
    if len(scored.tiers) == 1 or (routes == scored.full).all() or evidence.known != "card":
        return None
    low, middle, high = (
        loss_db(scored, _times(errors, np.array(factors)), routes)
        for factors in (evidence.low, np.ones(errors.shape[1]), evidence.high)
    )
    return Audit(round(middle, 4), round(low, 4), round(high, 4), len(evidence.probes))
