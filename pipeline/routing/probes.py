"""Which tiles are enlarged by all tiers first, to learn what they gain on this image.

Probes are drawn by strata of the score, so that easy and hard tiles are seen alike.
"""

import numpy as np

from tierscale.pipeline.geometry.grid import Grid
from tierscale.pipeline.plan.plan import Draft

# One tile in so many is a probe, as long as all of them take at most this share of the full tier
# everywhere; with fewer than LEAST there are none.
ONE_IN, SHARE, LEAST = 50, 0.03, 16
SEED = 0


def probe_count(draft: Draft, full_cost: float) -> int:
    """How many tiles of an image are probed; 0: too few for what they would cost.

    full_cost: multiply-adds of the full tier everywhere, halos included.
    """
    margin = 2 * draft.halo
    area = min(draft.tile + margin, draft.grid.size[0]) * min(
        draft.tile + margin, draft.grid.size[1]
    )
    each = area * draft.rgb_count * sum(tier.cost for tier in draft.tiers)
    count = min(len(whole_tiles(draft.grid)) // ONE_IN, int(SHARE * full_cost / each))
    return count if count >= LEAST else 0


def whole_tiles(grid: Grid) -> np.ndarray:
    """Indices of the tiles that the edge of the image does not cut."""
    rows, columns = (length // grid.tile for length in grid.size)
    index: np.ndarray = np.arange(grid.tiles[0] * grid.tiles[1]).reshape(grid.tiles)
    return index[:rows, :columns].ravel()


def probe_tiles(scores: np.ndarray, grid: Grid, count: int) -> tuple[int, ...]:
    """`count` whole tiles, rising: one from each of as many equal strata of the scores (tiles,)."""
    tiles = whole_tiles(grid)
    ordered = tiles[np.argsort(scores[tiles], kind="stable")]
    chance = np.random.default_rng(SEED)
    strata = np.array_split(ordered, count) if count else []
    return tuple(sorted(int(stratum[chance.integers(len(stratum))]) for stratum in strata))
