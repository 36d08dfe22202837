"""How the pieces of a shard are put together: cross-faded where tiers meet, copied elsewhere.

For a tile of tier u, let G(l) be the fade, 0..1, away from all neighbours of tiers below l (see
`geometry.layout`). Tier t < u has the weight G(t) - G(t + 1), and u has G(u). The weights of a
pixel add up to one, without a count map and without a division.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tierscale.pipeline.geometry.grid import Grid, Rect, Span
from tierscale.pipeline.geometry.layout import Tile, Work, fade_width, fading_parts, neighbours_of


@dataclass(frozen=True, slots=True)
class Piece:
    """One window's result and what it took.

    pixels: (c, H, W) float32 of the output of `work.valid`. macs: multiply-adds executed.
    milliseconds: of computing. batch: windows in the call that made it, 0 if it had to be cut for
    memory. worker: who made it; processor: on what.
    """

    work: Work
    pixels: np.ndarray
    macs: float
    milliseconds: float
    batch: int
    worker: str = ""
    processor: str = ""

    def without_pixels(self) -> "Piece":
        """The same without its pixels: what the receipt needs of it, once they are stitched."""
        return replace(self, pixels=np.empty((0, 0, 0), np.float32))


def stitch(
    grid: Grid,
    routes: np.ndarray,
    shard: tuple[int, int],
    pieces: Sequence[Piece],
    blend: int,
) -> np.ndarray:
    """Put the pieces of a shard together: (c, H, W) float32, not clipped.

    A single piece is taken as it is, if it may be written.
    """
    if len(pieces) == 1 and pieces[0].pixels.flags.writeable:
        return pieces[0].pixels
    origin = grid.hr(grid.shard_core(shard))
    channels = pieces[0].pixels.shape[0]
    result = np.zeros((channels, origin.y.length, origin.x.length), np.float32)
    for piece in pieces:
        kept = grid.hr(piece.work.valid)
        for use in piece.work.uses:
            place = grid.hr(use.rect)
            target = result[(slice(None), *place.within(origin).slices)]
            pixels = piece.pixels[(slice(None), *place.within(kept).slices)]
            if fading_parts(grid, routes, use.tile, blend):
                weights = blend_weights(grid, routes, use.tile, piece.work.tier, blend)
                target += weights[place.within(grid.hr(grid.core(*use.tile))).slices] * pixels
            else:
                target[...] = pixels
    return result


def blend_weights(grid: Grid, routes: np.ndarray, tile: Tile, tier: int, blend: int) -> np.ndarray:
    """Weight of `tier` in every output pixel of a tile's core: (H, W) float32, 0 to 1.

    Over all tiers they add up to one.
    """
    own = int(routes[tile])
    upper = fade(grid, routes, tile, tier, blend)
    if tier == own:
        return upper
    if tier > own:
        return np.zeros_like(upper)
    return upper - fade(grid, routes, tile, tier + 1, blend)


def fade(grid: Grid, routes: np.ndarray, tile: Tile, tier: int, blend: int) -> np.ndarray:
    """G(tier): (H, W) float32, 0 at the border to any neighbour of a lighter tier.

    It is 1 from `blend` input pixels on.
    """
    core = grid.core(*tile)
    hr = grid.hr(core)
    result = np.ones((hr.y.length, hr.x.length), np.float32)
    for (side_y, side_x), other in neighbours_of(routes, tile).items():
        if other < tier and blend:
            ramp_y = _ramp(grid, core.y, side_y, 0, blend)[:, None]
            ramp_x = _ramp(grid, core.x, side_x, 1, blend)[None, :]
            np.minimum(result, np.maximum(ramp_y, ramp_x), out=result)
    return result


def _ramp(grid: Grid, core: Span, side: int, axis: int, blend: int) -> np.ndarray:
    """Rise from a neighbour on `side` over the core's band, at output pixels; 0 for side 0."""
    band = fade_width(core, blend)

    def edge(position: int) -> int:
        rect = grid.hr(Rect(Span(position, position), Span(position, position)))
        return (rect.y if axis == 0 else rect.x).start

    start, stop = edge(core.start), edge(core.stop)
    if side == 0:
        return np.zeros(stop - start, np.float32)
    wide = edge(core.start + band) - start if side < 0 else stop - edge(core.stop - band)
    if wide == 0:
        return np.ones(stop - start, np.float32)
    rise = np.minimum((np.arange(stop - start) + 0.5) / wide, 1.0).astype(np.float32)
    return rise if side < 0 else rise[::-1]
