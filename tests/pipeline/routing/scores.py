"""Made-up scores of tiles under three tiers, and what their routes cost without halos."""

from typing import Any

import numpy as np
from hypothesis import strategies as st

from tierscale.pipeline.plan.tiers import Tier

COSTS = (240.0, 24_000.0, 570_000.0)
TIERS = tuple(
    Tier(f"t{i}", "", 1.0, cost, reach, 0.0)
    for i, (cost, reach) in enumerate(zip(COSTS, (2, 8, 21), strict=True))
)


def flat(routes: np.ndarray) -> float:
    """Cost of routes where each tile pays for one pixel."""
    return float(np.take(COSTS, routes).sum())


def more_would_gain(errors: np.ndarray, routes: np.ndarray) -> bool:
    """Whether a dearer tier saves anything on any tile."""
    dearer = np.arange(errors.shape[1]) > routes[:, None]
    better = errors < np.take_along_axis(errors, routes[:, None], axis=1)
    return bool((dearer & better).any())


@st.composite
def scores(draw: Any, most: int = 80) -> np.ndarray:
    """(tiles, 3), of up to `most` tiles; a dearer tier errs a little more here and there."""
    count = draw(st.integers(1, most))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    base = np.exp(rng.normal(-7, draw(st.floats(0, 3)), count))
    gains = rng.uniform(0.2, 1.05, (count, 2)).cumprod(axis=1)
    return np.column_stack([base, base[:, None] * gains])
