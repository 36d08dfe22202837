"""What routes cost: multiply-adds of all windows of an image, halos and strips included."""

from collections.abc import Callable, Sequence

import numpy as np

from tierscale.pipeline.geometry.grid import Grid
from tierscale.pipeline.geometry.layout import Work, lay_out
from tierscale.pipeline.plan.plan import Draft, Plan
from tierscale.pipeline.plan.tiers import Tier

# What calling a tier for a shard takes beside its multiply-adds, in multiply-adds: about 10 ms of
# one core. A constant, so that plans do not depend on a clock.
CALL_COST = 5e8


def cost_of_routes(
    grid: Grid, tiers: Sequence[Tier], blend: int, rgb_count: int
) -> Callable[[np.ndarray], float]:
    """A function from routes (tiles,) to multiply-adds of the image, halos and strips included.

    Each shard's cost depends on its own tiles and the ring around them; it is remembered, because a
    search asks for routes that differ in few tiles.
    """
    known: dict[tuple[tuple[int, int], bytes], float] = {}
    around = tuple(tier.surroundings for tier in tiers)

    def cost(routes: np.ndarray) -> float:
        square = routes.reshape(grid.tiles)
        total = 0.0
        for shard in grid.all_shards():
            rows, columns = grid.shard_block(shard)
            ring = square[
                max(0, rows.start - 1) : rows.stop + 1, max(0, columns.start - 1) : columns.stop + 1
            ]
            key = (shard, ring.astype(np.uint8).tobytes())
            if key not in known:
                works = lay_out(grid, square, shard, around, blend)
                known[key] = rgb_count * sum(_cost_of(tiers[work.tier], work) for work in works)
            total += known[key]
        return total

    return cost


def _cost_of(tier: Tier, work: Work) -> float:
    """Multiply-adds of one window."""
    return tier.cost * tier.filled(work.window.y.length) * tier.filled(work.window.x.length)


def areas(draft: Draft) -> np.ndarray:
    """Input pixels of each tile, (tiles,)."""
    rows, columns = (
        np.minimum(draft.tile, length - draft.tile * np.arange(count))
        for length, count in zip(draft.grid.size, draft.grid.tiles, strict=True)
    )
    return np.outer(rows, columns).ravel().astype(np.float64)


def planned_cost(draft: Draft, routes: np.ndarray) -> float:
    """Multiply-adds that routes will take, halos included."""
    cost = cost_of_routes(draft.grid, draft.tiers, draft.blend, draft.rgb_count)
    return float(cost(routes.ravel()))


def fixed_cost(draft: Draft, routes: np.ndarray) -> float:
    """Multiply-adds that calls of tiers are worth, whatever they enlarge: one a shard and tier."""
    square = routes.reshape(draft.grid.tiles)
    calls = 0
    for shard in draft.grid.all_shards():
        rows, columns = draft.grid.shard_block(shard)
        calls += len(np.unique(square[rows.start : rows.stop, columns.start : columns.stop]))
    return calls * CALL_COST


def full_cost(draft: Draft) -> float:
    """Multiply-adds of the full tier everywhere, halos included."""
    return planned_cost(draft, np.full(draft.grid.tiles, draft.full))


def cost_share(plan: Plan, cost: float) -> float:
    """Multiply-adds of a plan that was carried out whole as a share of the full tier everywhere.

    1 if that is what was done. Where a tier decides pixel by pixel, the full tier everywhere is
    what its table of efforts expects, and what was done was counted.
    """
    return 1.0 if (plan.routes == plan.full).all() else cost / full_cost(plan)
