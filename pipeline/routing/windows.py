"""Which tiles share a window: the quadtree of every shard as tables.

Tiles of one tier in a block of the quadtree are enlarged as one window and pay its halo once
(geometry.layout), so a lone tile of a larger tier costs more than one among its like. For a given
price of work, the choice with the least error + price * cost is found exactly for a whole image,
from single tiles up to whole shards: a block is one window of the tier that is best for it, or
whatever is best for its parts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tierscale.pipeline.geometry.grid import Grid, Rect, Span, halves
from tierscale.pipeline.plan.tiers import Tier


@dataclass(frozen=True, slots=True)
class Depth:
    """All blocks of one depth of the quadtrees, which cover the image's tiles by rows and columns.

    rows, columns: first tile of each block, rising. cost: multiply-adds of one window for each
    block, (rows, columns, T).
    """

    rows: np.ndarray
    columns: np.ndarray
    cost: np.ndarray


@dataclass(frozen=True, slots=True)
class Groups:
    """The quadtrees of an image. shape: rows and columns of tiles. depths: from whole shards to
    single tiles.
    """

    shape: tuple[int, int]
    depths: tuple[Depth, ...]

    def least(self, errors: np.ndarray, price: float) -> np.ndarray:
        """Routes (tiles,) with the least error + price * cost, strips along mixed edges of shards
        left out.

        errors: what each tier leaves on each tile, (tiles, T), to be added up. Of equal choices the
        cheaper tier and the larger block.
        """
        square = errors.reshape(*self.shape, -1)
        tiles = self.depths[-1]
        valued = square + price * tiles.cost
        best = valued.min(axis=2)
        routes: np.ndarray = valued.argmin(axis=2)
        for above, below in zip(self.depths[-2::-1], self.depths[:0:-1], strict=True):
            valued = _sums(_sums(square, above.rows, 0), above.columns, 1) + price * above.cost
            parts = [
                np.searchsorted(fine, coarse)
                for fine, coarse in ((below.rows, above.rows), (below.columns, above.columns))
            ]
            split = _sums(_sums(best, parts[0], 0), parts[1], 1)
            whole = valued.min(axis=2) <= split
            best = np.where(whole, valued.min(axis=2), split)
            counts = [
                np.diff([*first, length])
                for first, length in zip((above.rows, above.columns), self.shape, strict=True)
            ]
            chosen = [
                values.repeat(counts[0], 0).repeat(counts[1], 1)
                for values in (whole, valued.argmin(axis=2))
            ]
            routes = np.where(chosen[0], chosen[1], routes)
        return routes.ravel().astype(np.int64)

    def cost(self, routes: np.ndarray) -> float:
        """Multiply-adds of the windows that routes (tiles,) need; strips along mixed edges of
        shards left out.
        """
        square = routes.reshape(self.shape)
        each = np.take_along_axis(self.depths[-1].cost, square[:, :, None], axis=2)[:, :, 0]
        for above, below in zip(self.depths[-2::-1], self.depths[:0:-1], strict=True):
            parts = [
                np.searchsorted(fine, coarse)
                for fine, coarse in ((below.rows, above.rows), (below.columns, above.columns))
            ]
            split = _sums(_sums(each, parts[0], 0), parts[1], 1)
            least, most = (
                pick.reduceat(pick.reduceat(square, above.rows, axis=0), above.columns, axis=1)
                for pick in (np.minimum, np.maximum)
            )
            whole = np.take_along_axis(above.cost, least[:, :, None], axis=2)[:, :, 0]
            each = np.where(least == most, whole, split)
        return float(each.sum())

    def together(self, tiles: np.ndarray, worth: np.ndarray) -> np.ndarray:
        """Tiles (n,) in order of worth (n,), those of one block after each other: blocks by their
        mean, ties by position.
        """
        keys: list[np.ndarray] = []
        row, column = np.divmod(tiles, self.shape[1])
        for depth in self.depths:
            block = np.searchsorted(depth.rows, row, "right") * len(
                depth.columns
            ) + np.searchsorted(depth.columns, column, "right")
            _, place = np.unique(block, return_inverse=True)
            mean = np.bincount(place, worth) / np.bincount(place)
            keys += [-mean[place], block]
        return tiles[np.lexsort(keys[::-1])]


def groups(grid: Grid, tiers: Sequence[Tier], blend: int, rgb_count: int) -> Groups:
    """The quadtrees of an image as the pipeline lays them out, with what their windows cost."""
    axes = [_depths(grid, axis) for axis in (0, 1)]
    deepest = max(map(len, axes))
    rows, columns = ([*spans, *[spans[-1]] * (deepest - len(spans))] for spans in axes)
    depths = []
    for high, wide in zip(rows, columns, strict=True):
        cost = np.empty((len(high), len(wide), len(tiers)))
        for index, tier in enumerate(tiers):
            lengths = [
                _lengths(grid, spans, axis, tier, blend) for axis, spans in ((0, high), (1, wide))
            ]
            cost[:, :, index] = tier.cost * rgb_count * np.outer(*lengths)
        depths.append(
            Depth(
                np.array([span.start for span in high]),
                np.array([span.start for span in wide]),
                cost,
            )
        )
    return Groups(grid.tiles, tuple(depths))


def _sums(values: np.ndarray, first: np.ndarray, axis: int) -> np.ndarray:
    """Sums of neighbours along an axis, each group beginning at one of `first`."""
    return np.add.reduceat(values, first, axis=axis)


def _depths(grid: Grid, axis: int) -> list[list[Span]]:
    """Tiles of the blocks along one axis, from whole shards to single tiles."""
    side, count = grid.shard_tiles[axis], grid.tiles[axis]
    spans = [Span(start, min(start + side, count)) for start in range(0, count, side)]
    found = [spans]
    while any(span.length > 1 for span in spans):
        spans = [part for span in spans for part in halves(span)]
        found.append(spans)
    return found


def _lengths(grid: Grid, spans: Sequence[Span], axis: int, tier: Tier, blend: int) -> np.ndarray:
    """Input pixels that the windows of blocks of tiles count for along one axis."""
    found = []
    for span in spans:
        first = Span(0, 1)
        block = grid.block(span, first) if axis == 0 else grid.block(first, span)
        need = Rect(block.y.grown(blend, grid.size[0]), block.x.grown(blend, grid.size[1]))
        window = grid.window(need, tier.surroundings, blend)
        found.append(tier.filled((window.y if axis == 0 else window.x).length))
    return np.array(found, np.float64)
