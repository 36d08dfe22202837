"""All tiers on one tile: how far their results lie from that of the full tier."""

import numpy as np

from tierscale.pipeline.geometry.layout import Use, Work
from tierscale.pipeline.inference.enlarge import Engine, enlarge
from tierscale.pipeline.inference.normalise import Read, missing, to_unit
from tierscale.pipeline.inference.shard import ShardInput
from tierscale.pipeline.plan.value_range import ValueRange


def probe(engine: Engine, value_range: ValueRange, read: Read, index: int) -> np.ndarray:
    """Mean squared difference of each tier's result from that of the full tier, on one tile.

    (tiers,), float64, values 0..1. index: of the tile, in reading order.
    """
    draft, grid = engine.draft, engine.draft.grid
    tile = divmod(index, grid.tiles[1])
    core = grid.core(*tile)
    windows = [grid.window(core, tier.surroundings, draft.blend) for tier in draft.tiers]
    works = [Work(tier, window, (Use(tile, core),), (tile,)) for tier, window in enumerate(windows)]
    held = core
    for work in works:
        held = held.around(work.window)
    pixels = read(held.y.start, held.y.stop, held.x.start, held.x.stop)
    unit = to_unit(pixels, value_range, missing(pixels, value_range.nodata))
    shard_input = ShardInput(held, np.ascontiguousarray(unit), None)
    made = {
        piece.work.tier: np.clip(piece.pixels, 0, 1)
        for piece in enlarge(engine, shard_input, works)
    }
    full = made[draft.full]
    return np.array(
        [np.square(made[tier] - full, dtype=np.float64).mean() for tier in range(len(works))]
    )
