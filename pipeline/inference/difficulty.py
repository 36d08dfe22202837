"""The prescan: the error that each tier is predicted to leave on a tile, from the tile's pixels."""

from collections.abc import Callable

import numpy as np
import torch

from tierscale.pipeline.errors import Refused
from tierscale.pipeline.geometry.grid import Grid, Span
from tierscale.pipeline.inference.normalise import Read, hidden, missing, rgb_batch, straight_unit
from tierscale.pipeline.plan.plan import Draft
from tierscale.pipeline.plan.value_range import ValueRange

# Tiles in one call of the scout. Fixed, so that a tile's score does not depend on its companions.
SCOUT_BATCH = 8

# Rows of tiles that a worker scores in one call.
SCOUT_ROWS = 4

Scout = Callable[[torch.Tensor], torch.Tensor]


def blocks(length: int, step: int) -> list[Span]:
    """0..length in spans of `step`; the last may be shorter."""
    return [Span(start, min(start + step, length)) for start in range(0, length, step)]


def measure(
    read: Read, rows: Span, width: int, nodata: float | None, alpha: str | None
) -> tuple[float, float]:
    """Smallest and largest value of some pixel rows of an image, alpha and what it hides left out.

    (inf, -inf) where nothing is to be seen. Refused: NaN or infinite values that no no-data value
    accounts for.
    """
    low, high = np.inf, -np.inf
    for columns in blocks(width, 4096):
        pixels = read(rows.start, rows.stop, columns.start, columns.stop)
        mask = missing(pixels, nodata)
        if alpha is not None:
            mask = hidden(pixels) if mask is None else mask | hidden(pixels)
        if pixels.dtype.kind == "f":
            _refuse_nonfinite(pixels, mask, rows.start, columns.start)
        colours = pixels if alpha is None else pixels[:-1]
        values = colours if mask is None else colours[:, ~mask]
        if values.size:
            low, high = min(low, float(values.min())), max(high, float(values.max()))
    return low, high


def _refuse_nonfinite(pixels: np.ndarray, mask: np.ndarray | None, top: int, left: int) -> None:
    bad = ~np.isfinite(pixels) if mask is None else ~np.isfinite(pixels) & ~mask
    if bad.any():
        channel, row, column = (int(n) for n in np.argwhere(bad)[0])
        value = pixels[channel, row, column]
        raise Refused(
            f"the value at row {top + row}, column {left + column}, channel {channel} is {value},"
            f" and no network can enlarge that; give --nodata {value} if it stands for missing"
            " data, or mend the source"
        )


def score(
    draft: Draft, value_range: ValueRange, read: Read, rows: Span, scout: Scout | None
) -> np.ndarray:
    """Predicted mean squared error of each tier on the tiles of some tile rows.

    (rows, columns, tiers), float32; values 0..1 squared.
    """
    grid, tiers = draft.grid, len(draft.tiers)
    scores = np.empty((rows.length, grid.tiles[1], tiers), np.float32)
    for columns in blocks(grid.tiles[1], SCOUT_BATCH):
        top, left = tile_place(rows.start, grid, 0).start, tile_place(columns.start, grid, 1).start
        bottom = tile_place(rows.stop - 1, grid, 0).stop
        right = tile_place(columns.stop - 1, grid, 1).stop
        pixels = read(top, bottom, left, right)
        mask = missing(pixels, value_range.nodata)
        unit = straight_unit(pixels, value_range, draft.alpha, mask)
        colours = rgb_batch(unit, draft.colour)
        for row in range(rows.start, rows.stop):
            y = tile_place(row, grid, 0)
            line = colours[:, :, y.start - top : y.stop - top]
            spans = [tile_place(column, grid, 1) for column in range(columns.start, columns.stop)]
            tiles = np.stack([line[..., x.start - left : x.stop - left] for x in spans])
            target = scores[row - rows.start, columns.start : columns.stop]
            target[...] = _score_tiles(tiles, scout, tiers)
    return scores


def tile_place(index: int, grid: Grid, axis: int) -> Span:
    """The pixels that a tile is scored on: its core, slid inwards at the far edge so that all tiles
    have one shape.
    """
    length = grid.size[axis]
    start = max(0, min(index * grid.tile, length - grid.tile))
    return Span(start, min(start + grid.tile, length))


def _score_tiles(tiles: np.ndarray, scout: Scout | None, tiers: int) -> np.ndarray:
    """Scores of up to SCOUT_BATCH tiles (tiles, n, 3, h, w), averaged over their n RGB triples.

    (tiles, tiers). On a tile of one colour every tier is predicted to err alike: all make the same
    of it.
    """
    if scout is None:
        return detail(tiles, tiers)
    count, triples = tiles.shape[:2]
    scores = np.zeros((count, tiers))
    for triple in range(triples):
        batch = np.zeros((SCOUT_BATCH, *tiles.shape[2:]), np.float32)
        batch[:count] = tiles[:, triple]
        with torch.inference_mode():
            scores += scout(torch.from_numpy(batch)).double().cpu().numpy()[:count]
    flat = np.ptp(tiles, axis=(3, 4)).max(axis=(1, 2)) == 0
    scores[flat] = scores[flat, -1:]
    return (scores / triples).astype(np.float32)


def detail(tiles: np.ndarray, tiers: int) -> np.ndarray:
    """A stand-in where no scout was fitted: gradient energy, falling evenly from the first tier on.

    tiles: (tiles, n, 3, h, w), 0..1. It ranks tiles; its size is no measured error.
    """
    energy = np.zeros(len(tiles), tiles.dtype)
    for axis in (-2, -1):
        part = np.diff(tiles, axis=axis)
        if part.size:
            energy = energy + np.square(part).mean(axis=(1, 2, 3, 4))
    steps = np.linspace(1, 0, tiers) if tiers > 1 else np.ones(1)
    return (energy[:, None] * steps).astype(np.float32)
