"""The prescan: values of an image, and how hard its tiles are, from their pixels."""

import numpy as np
import torch

from tierscale.models.contract.upscaler import Upscaler
from tierscale.models.difference import difference, local_energy
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.geometry.grid import Grid, Span
from tierscale.pipeline.inference.normalise import Read, hidden, missing, rgb_batch, straight_unit
from tierscale.pipeline.plan.plan import Draft
from tierscale.pipeline.plan.value_range import ValueRange

# Tiles of a row that are read at a time, and rows of tiles that a worker scores in one call.
READ_TILES, ROWS = 8, 4


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
    draft: Draft,
    value_range: ValueRange,
    read: Read,
    rows: Span,
    network: Upscaler | None,
    device: str = "cpu",
) -> np.ndarray:
    """How hard the tiles of some tile rows are: (rows, columns), float64, at least 0.

    network: whose difference from bicubic it is; None: local energy. On a tile of one colour it is
    0: all tiers make the same of it.
    """
    grid = draft.grid
    scores = np.empty((rows.length, grid.tiles[1]))
    for columns in blocks(grid.tiles[1], READ_TILES):
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
            for column in range(columns.start, columns.stop):
                x = tile_place(column, grid, 1)
                tile = line[..., x.start - left : x.stop - left]
                scores[row - rows.start, column] = _score_tile(tile, network, draft, device)
    return scores


def _score_tile(triples: np.ndarray, network: Upscaler | None, draft: Draft, device: str) -> float:
    """The score of one tile's RGB triples (n, 3, h, w), averaged over them."""
    if np.ptp(triples, axis=(2, 3)).max() == 0:
        return 0.0
    tiles = torch.from_numpy(np.ascontiguousarray(triples))
    if network is None:
        return float(local_energy(tiles).mean())
    found = [difference(network, one[None].to(device), draft.scale) for one in tiles]
    return float(torch.cat(found).double().mean())


def tile_place(index: int, grid: Grid, axis: int) -> Span:
    """The pixels that a tile is scored on: its core, slid inwards at the far edge so that all tiles
    have one shape.
    """
    length = grid.size[axis]
    start = max(0, min(index * grid.tile, length - grid.tile))
    return Span(start, min(start + grid.tile, length))
