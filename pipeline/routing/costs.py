"""What routes cost: multiply-adds of all windows of an image, halos and strips included."""

from collections.abc import Callable, Sequence

import numpy as np

from tierscale.pipeline.geometry.grid import Grid
from tierscale.pipeline.geometry.layout import lay_out
from tierscale.pipeline.inference.normalise import plane_count
from tierscale.pipeline.plan.plan import Plan, Tier


def cost_of_routes(
    grid: Grid, tiers: Sequence[Tier], blend: int, planes: int
) -> Callable[[np.ndarray], float]:
    """A function from flat routes (tiles,) to the multiply-adds of the whole image, halos and
    strips included.

    Each shard's cost depends on its own tiles and the ring around them; it is remembered, because a
    search asks for routes that differ in few tiles.
    """
    known: dict[tuple[tuple[int, int], bytes], float] = {}
    reaches = tuple(tier.reach for tier in tiers)

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
                works = lay_out(grid, square, shard, reaches, blend)
                known[key] = (
                    sum(tiers[work.tier].cost * work.window.area for work in works) * planes
                )
            total += known[key]
        return total

    return cost


def planned_cost(plan: Plan, routes: np.ndarray) -> float:
    """Multiply-adds that routes will take, halos included."""
    return float(
        cost_of_routes(plan.grid, plan.tiers, plan.blend, plane_count(plan.shape[0], plan.colour))(
            routes.ravel()
        )
    )


def full_cost(plan: Plan) -> float:
    """Multiply-adds of the dearest tier everywhere, halos included."""
    return planned_cost(plan, np.full(plan.grid.tiles, len(plan.tiers) - 1))


def cost_share(plan: Plan, cost: float) -> float:
    """Multiply-adds of a plan that was carried out whole as a share of the dearest tier everywhere:
    1 if that is what was done.

    Where a tier decides pixel by pixel, the dearest tier everywhere is what its table of efforts
    expects, and what was done was counted.
    """
    assert plan.routes is not None
    return 1.0 if (plan.routes == len(plan.tiers) - 1).all() else cost / full_cost(plan)
