"""Random images' grids and routes, for laws of what a shard computes and how it is put together."""

from typing import Any

import numpy as np
from hypothesis import strategies as st

from tierscale.pipeline.geometry.grid import Grid, tile_length
from tierscale.pipeline.plan.options import parse_scale

SCALES = [parse_scale(text) for text in ("4", "2", "3/2", "2.7")]
BLENDS = st.integers(0, 4)


@st.composite
def scenes(draw: Any) -> tuple[Grid, np.ndarray]:
    """A grid of up to 130 by 130 pixels, and routes among up to four tiers."""
    scale = draw(st.sampled_from(SCALES))
    tile = tile_length(draw(st.integers(8, 24)), scale)
    grid = Grid((draw(st.integers(1, 130)), draw(st.integers(1, 130))), scale, tile)
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    return grid, rng.integers(0, draw(st.integers(1, 4)), grid.tiles)
