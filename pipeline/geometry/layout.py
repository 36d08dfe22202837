"""What a shard must compute, and how its pieces are put together without a seam.

Where tiles of different tiers meet, the dearer tile fades from the cheaper tier at its border to
its own tier `blend` input pixels inside. The fade lies in the dearer tile alone, so only the
cheaper tier is ever computed twice: a dear strip would cost three per cent of a shard for each
mixed edge, a cheap one next to nothing.

For a tile of tier u, let G(l) be the fade, 0..1, away from all neighbours cheaper than l: G(0) = 1,
and G falls with l. Tier t < u then has the share G(t) - G(t + 1), and u has G(u). The sum
telescopes to one: no count map, no division.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tierscale.pipeline.geometry.grid import Grid, Rect, Span, quadtree

Tile = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Use:
    """Where a result goes: the part `rect` (input pixels) of the core of `tile`."""

    tile: Tile
    rect: Rect


@dataclass(frozen=True, slots=True)
class Work:
    """One window to enlarge.

    tier: index into the plan's tiers.
    window: input pixels to read.
    uses: where the results go; every output pixel of a shard has its shares covered once.
    owner: the tiles that its cost is counted for.
    """

    tier: int
    window: Rect
    uses: tuple[Use, ...]
    owner: tuple[Tile, ...]

    @property
    def keep(self) -> Rect:
        """The input rectangle whose results are used at all."""
        kept = self.uses[0].rect
        for use in self.uses[1:]:
            kept = kept.around(use.rect)
        return kept


@dataclass(frozen=True, slots=True)
class Piece:
    """A result: pixels (c, H, W) float32 of the output of `work.keep`, and what it took.

    spent: multiply-adds executed; milliseconds: of computing; batch: windows in the call that made
    it, 0 if it had to be cut for memory.
    """

    work: Work
    pixels: np.ndarray
    macs: float
    milliseconds: float
    batch: int

    def told(self) -> "Piece":
        """The same without its pixels: what the receipt needs of it, once they are stitched."""
        return replace(self, pixels=np.empty((0, 0, 0), np.float32))


def lay_out(
    grid: Grid, routes: np.ndarray, shard: tuple[int, int], reaches: Sequence[int], blend: int
) -> list[Work]:
    """All windows that one shard needs.

    routes: (rows, columns) of tier indices, whole image. reaches: input pixels, for each tier.
    blend: input pixels.
    """
    rows, columns = grid.shard_block(shard)
    uses: dict[tuple[int, Tile], list[Use]] = {}
    for row in range(rows.start, rows.stop):
        for column in range(columns.start, columns.stop):
            tile = (row, column)
            uses.setdefault((int(routes[tile]), tile), []).append(Use(tile, grid.core(*tile)))
            for tier, giver, rect in bands(grid, routes, tile, blend):
                uses.setdefault((tier, giver), []).append(Use(tile, rect))
    works = []
    for part_rows, part_columns in quadtree(routes, rows, columns):
        tiles = tuple(
            (r, c)
            for r in range(part_rows.start, part_rows.stop)
            for c in range(part_columns.start, part_columns.stop)
        )
        tier = int(routes[tiles[0]])
        need = grid.block(part_rows, part_columns)
        need = Rect(need.y.grown(blend, grid.size[0]), need.x.grown(blend, grid.size[1]))
        parts = tuple(use for tile in tiles for use in uses.pop((tier, tile)))
        works.append(Work(tier, grid.window(need, reaches[tier], blend), parts, tiles))
    # What is left is asked of tiles in other shards: narrow strips along mixed edges.
    for (tier, _), strip in uses.items():
        owner = tuple(dict.fromkeys(use.tile for use in strip))
        need = Work(tier, strip[0].rect, tuple(strip), owner).keep
        works.append(Work(tier, grid.window(need, reaches[tier], blend), tuple(strip), owner))
    return works


def bands(grid: Grid, routes: np.ndarray, tile: Tile, blend: int) -> list[tuple[int, Tile, Rect]]:
    """The parts of a tile that fade: (tier, the neighbour of that tier that computes it, rectangle
    of the tile's core).
    """
    neighbours = _neighbours(routes, tile)
    own = int(routes[tile])
    cheaper = sorted({tier for tier in neighbours.values() if tier < own})
    if not cheaper or blend == 0:
        return []
    core = grid.core(*tile)
    parts = []
    for part_y, span_y in _thirds(core.y, blend):
        for part_x, span_x in _thirds(core.x, blend):
            # Beside an edge only the neighbour there counts; in a corner three do, and any of one
            # tier can serve.
            near = [
                place for place in ((part_y, 0), (0, part_x), (part_y, part_x)) if place != (0, 0)
            ]
            for tier in cheaper:
                giver = next((place for place in near if neighbours.get(place) == tier), None)
                if giver is not None:
                    parts.append(
                        (tier, (tile[0] + giver[0], tile[1] + giver[1]), Rect(span_y, span_x))
                    )
    return parts


def share(grid: Grid, routes: np.ndarray, tile: Tile, tier: int, blend: int) -> np.ndarray:
    """Share of `tier` in every output pixel of a tile's core: (H, W) float32, 0 to 1. Over all
    tiers they add up to one.
    """
    own = int(routes[tile])
    upper = fade(grid, routes, tile, tier, blend)
    if tier == own:
        return upper
    if tier > own:
        return np.zeros_like(upper)
    return upper - fade(grid, routes, tile, tier + 1, blend)


def fade(grid: Grid, routes: np.ndarray, tile: Tile, level: int, blend: int) -> np.ndarray:
    """G(level): 0 at the border to any neighbour cheaper than `level`, 1 from `blend` input pixels
    on; (H, W) float32.
    """
    core = grid.core(*tile)
    hr = grid.hr(core)
    result = np.ones((hr.y.length, hr.x.length), np.float32)
    for (side_y, side_x), tier in _neighbours(routes, tile).items():
        if tier < level and blend:
            ramp_y = _ramp(grid, core.y, side_y, 0, blend)[:, None]
            ramp_x = _ramp(grid, core.x, side_x, 1, blend)[None, :]
            np.minimum(result, np.maximum(ramp_y, ramp_x), out=result)
    return result


def stitch(
    grid: Grid,
    routes: np.ndarray,
    shard: tuple[int, int],
    pieces: Sequence[Piece],
    channels: int,
    blend: int,
) -> np.ndarray:
    """Put the pieces of a shard together: (channels, H, W) float32, not clipped. A single piece is
    taken as it is, if it may be written.
    """
    if len(pieces) == 1 and pieces[0].pixels.flags.writeable:
        return pieces[0].pixels
    origin = grid.hr(grid.shard_core(shard))
    result = np.zeros((channels, origin.y.length, origin.x.length), np.float32)
    for piece in pieces:
        kept = grid.hr(piece.work.keep)
        for use in piece.work.uses:
            place = grid.hr(use.rect)
            target = result[(slice(None), *place.within(origin).slices)]
            pixels = piece.pixels[(slice(None), *place.within(kept).slices)]
            if bands(grid, routes, use.tile, blend):
                weights = share(grid, routes, use.tile, piece.work.tier, blend)
                target += weights[place.within(grid.hr(grid.core(*use.tile))).slices] * pixels
            else:
                target[...] = pixels
    return result


def _neighbours(routes: np.ndarray, tile: Tile) -> dict[Tile, int]:
    """Tier of each of the up to eight neighbours, by (row, column) offset."""
    rows, columns = routes.shape
    return {
        (dy, dx): int(routes[tile[0] + dy, tile[1] + dx])
        for dy in (-1, 0, 1)
        for dx in (-1, 0, 1)
        if (dy or dx) and 0 <= tile[0] + dy < rows and 0 <= tile[1] + dx < columns
    }


def _band(span: Span, blend: int) -> int:
    """Width of the fade on one axis of a core: never more than half of it, so that fades from both
    sides do not meet.
    """
    return min(blend, span.length // 2)


def _thirds(span: Span, blend: int) -> list[tuple[int, Span]]:
    """A core's first band, middle and last band on one axis, with the side (-1, 0, 1) that each
    lies on.
    """
    band = _band(span, blend)
    parts = [
        (-1, Span(span.start, span.start + band)),
        (0, Span(span.start + band, span.stop - band)),
        (1, Span(span.stop - band, span.stop)),
    ]
    return [part for part in parts if part[1].length]


def _ramp(grid: Grid, core: Span, side: int, axis: int, blend: int) -> np.ndarray:
    """Rise from a neighbour on `side` of a core over its band, at the centres of output pixels;
    zero for side 0.
    """
    band = _band(core, blend)

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
