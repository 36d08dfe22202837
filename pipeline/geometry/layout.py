"""What a shard must compute so that its pieces meet without a seam.

Where tiles of different tiers meet, the tile of the heavier tier fades from the lighter tier at its
border to its own tier `blend` input pixels inside. The fade lies in that tile alone, so that only
the lighter tier is ever computed twice: a strip of the heavier tier would cost three per cent of a
shard for each mixed edge, one of the lighter tier next to nothing.

For a tile of tier u, let G(l) be the fade, 0..1, away from all neighbours lighter than l: G(0) = 1,
and G falls with l. Tier t < u then has the weight G(t) - G(t + 1), and u has G(u). The sum
telescopes to one: no count map, no division (`inference.blend`).
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tierscale.pipeline.geometry.grid import Grid, Rect, Span, Surroundings, quadtree

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
    uses: where the results go; the weights of every output pixel of a shard are covered once.
    owner: the tiles that its cost is counted for.
    """

    tier: int
    window: Rect
    uses: tuple[Use, ...]
    owner: tuple[Tile, ...]

    @property
    def valid(self) -> Rect:
        """The input rectangle whose results are used at all."""
        kept = self.uses[0].rect
        for use in self.uses[1:]:
            kept = kept.around(use.rect)
        return kept


def lay_out(
    grid: Grid,
    routes: np.ndarray,
    shard: tuple[int, int],
    around: Sequence[Surroundings],
    blend: int,
) -> list[Work]:
    """All windows that one shard needs.

    routes: (rows, columns) of tier indices, whole image. around: of each tier. blend: input pixels.
    """
    rows, columns = grid.shard_block(shard)
    uses: dict[tuple[int, Tile], list[Use]] = {}
    for row in range(rows.start, rows.stop):
        for column in range(columns.start, columns.stop):
            tile = (row, column)
            uses.setdefault((int(routes[tile]), tile), []).append(Use(tile, grid.core(*tile)))
            for tier, neighbour, rect in fading_parts(grid, routes, tile, blend):
                uses.setdefault((tier, neighbour), []).append(Use(tile, rect))
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
        works.append(Work(tier, grid.window(need, around[tier], blend), parts, tiles))
    # What is left is asked of tiles in other shards: narrow strips along mixed edges.
    for (tier, _), strip in uses.items():
        owner = tuple(dict.fromkeys(use.tile for use in strip))
        need = Work(tier, strip[0].rect, tuple(strip), owner).valid
        works.append(Work(tier, grid.window(need, around[tier], blend), tuple(strip), owner))
    return works


def fading_parts(
    grid: Grid, routes: np.ndarray, tile: Tile, blend: int
) -> list[tuple[int, Tile, Rect]]:
    """The parts of a tile where it fades into lighter neighbours.

    Each is the neighbour's tier, the neighbour, whose window computes it, and the rectangle of the
    tile's core.
    """
    neighbours = neighbours_of(routes, tile)
    own = int(routes[tile])
    lighter = sorted({tier for tier in neighbours.values() if tier < own})
    if not lighter or blend == 0:
        return []
    core = grid.core(*tile)
    parts = []
    for (side_y, span_y), (side_x, span_x) in itertools.product(
        _thirds(core.y, blend), _thirds(core.x, blend)
    ):
        # Beside an edge only the neighbour there counts; in a corner three do, and any of one tier
        # can serve.
        sides = [side for side in ((side_y, 0), (0, side_x), (side_y, side_x)) if side != (0, 0)]
        for tier in lighter:
            dy, dx = next((side for side in sides if neighbours.get(side) == tier), (0, 0))
            if (dy, dx) != (0, 0):
                parts.append((tier, (tile[0] + dy, tile[1] + dx), Rect(span_y, span_x)))
    return parts


def neighbours_of(routes: np.ndarray, tile: Tile) -> dict[Tile, int]:
    """Tier of each of the up to eight neighbours, by (row, column) offset."""
    rows, columns = routes.shape
    return {
        (dy, dx): int(routes[tile[0] + dy, tile[1] + dx])
        for dy in (-1, 0, 1)
        for dx in (-1, 0, 1)
        if (dy or dx) and 0 <= tile[0] + dy < rows and 0 <= tile[1] + dx < columns
    }


def fade_width(span: Span, blend: int) -> int:
    """Width of the fade on one axis of a core: never more than half of it, so that fades from both
    sides do not meet.
    """
    return min(blend, span.length // 2)


def _thirds(span: Span, blend: int) -> list[tuple[int, Span]]:
    """A core's first band, middle and last band on one axis, with the side (-1, 0, 1) that each
    lies on.
    """
    band = fade_width(span, blend)
    parts = [
        (-1, Span(span.start, span.start + band)),
        (0, Span(span.start + band, span.stop - band)),
        (1, Span(span.stop - band, span.stop)),
    ]
    return [part for part in parts if part[1].length]
