"""How faithful a finished shard is to its source: whether it was made as it should be.

A card that is sick, a tile that is black, a network that drifted from its weights: all of them show
when the shard is shrunk again and compared with what it was made of. `models.fidelity` has the
arithmetic; here it meets values, alpha, no-data and tiles of a plan.
"""

from dataclasses import dataclass

import numpy as np

from tierscale.models.fidelity import RIM, Fill, decibels, shrunk, tile_errors
from tierscale.pipeline.geometry.grid import Rect, Span
from tierscale.pipeline.inference.normalise import eroded
from tierscale.pipeline.inference.shard import ShardInput
from tierscale.pipeline.plan.plan import Plan
from tierscale.pipeline.plan.value_range import ValueRange

# Row and column of a tile, and its fidelity in dB.
TileFidelity = tuple[int, int, float]


@dataclass(frozen=True, slots=True)
class FidelityRule:
    """How the fidelity of a shard is measured, and from where on the shard is doubted.

    bound: of the worst tile, dB, below which another worker must make the same; None: it is not
    known. block: side of the squares of source pixels that are averaged first, where networks take
    grain away. every: one row of tiles in so many is measured.
    """

    bound: float | None = None
    block: int = 1
    every: int = 1

    def doubts(self, fidelity: float | None) -> bool:
        """Whether a shard with this fidelity of its worst tile must be made by another worker."""
        return self.bound is not None and fidelity is not None and fidelity < self.bound


@dataclass(frozen=True, slots=True)
class MadeShard:
    """A finished shard, and what it was made of. pixels: (c, H, W), of the output's type."""

    plan: Plan
    source: ShardInput
    shard: tuple[int, int]
    pixels: np.ndarray


def measure(made: MadeShard, rule: FidelityRule) -> tuple[TileFidelity, ...]:
    """Fidelity of the tiles of a finished shard.

    Colours are compared, over the plan's value range. Left out are RIM source pixels at the borders
    of the shard, pixels with alpha 0, and those without data or so near to them that these show
    after shrinking. A tile of which nothing is left is missing.
    """
    valid = _valid(made)
    columns = made.plan.grid.shard_block(made.shard)[1]
    found: list[TileFidelity] = []
    for rows in _rows(made, rule.every):
        errors = _errors(made, rows, valid, rule.block)
        for (row, column), fidelity in np.ndenumerate(decibels(errors)):
            if not np.isnan(fidelity):
                place = rows.start + row, columns.start + column
                found.append((*place, round(float(fidelity), 3)))
    return tuple(found)


def worst(tiles: tuple[TileFidelity, ...]) -> TileFidelity | None:
    """The tile of the smallest fidelity; None: none was measured."""
    return min(tiles, key=lambda tile: tile[2], default=None)


def _rows(made: MadeShard, every: int) -> list[Span]:
    """The rows of tiles that are measured together: all of a shard, or some by themselves.

    Of neighbouring shards they are others.
    """
    rows = made.plan.grid.shard_block(made.shard)[0]
    if every == 1:
        return [rows]
    first = rows.start + sum(made.shard) % min(every, rows.stop - rows.start)
    return [Span(row, row + 1) for row in range(first, rows.stop, every)]


def _valid(made: MadeShard) -> np.ndarray:
    """Which of the source pixels that are held count, (h, w)."""
    source, plan = made.source, made.plan
    valid = np.ones(source.unit.shape[1:], bool)
    if plan.alpha is not None:
        valid &= source.unit[-1] > 0
    if source.mask is not None:
        valid &= eroded(~source.mask[None], RIM)[0]
    return valid


def _errors(made: MadeShard, rows: Span, valid: np.ndarray, block: int) -> np.ndarray:
    """Mean squared errors of tiles, by row and column of the shard; NaN where nothing is left.

    rows: of tiles that are shrunk as one picture.
    """
    plan, grid = made.plan, made.plan.grid
    columns = grid.shard_block(made.shard)[1]
    core = grid.block(rows, columns)
    if min(core.y.stop - core.y.start, core.x.stop - core.x.start) <= 2 * RIM:
        return np.full((rows.stop - rows.start, columns.stop - columns.start), np.nan)
    inner = Rect(
        Span(core.y.start + RIM, core.y.stop - RIM), Span(core.x.start + RIM, core.x.stop - RIM)
    )
    held = inner.within(made.source.rect).slices
    output = grid.hr(core).within(grid.hr(grid.shard_core(made.shard))).slices
    tiles = (
        [_part(grid.core(row, columns.start).y, inner.y) for row in range(rows.start, rows.stop)],
        [_part(grid.core(rows.start, x).x, inner.x) for x in range(columns.start, columns.stop)],
    )
    fill, factor = _filler(plan.value_range, made.pixels.dtype)
    size, channels = (core.y.length, core.x.length), plan.shape[0] - (plan.alpha is not None)
    errors = np.zeros((len(tiles[0]), len(tiles[1])))
    for pixels, source in zip(made.pixels[:channels], made.source.unit, strict=False):
        difference = shrunk(pixels[output], plan.scale, size, fill) * factor - source[held]
        errors += tile_errors(difference, valid[held], tiles, block) / channels
    return errors


def _part(core: Span, inner: Span) -> slice:
    """The part of a tile that is compared, counted from the first pixel that is."""
    start, stop = max(core.start, inner.start), min(core.stop, inner.stop)
    return slice(start - inner.start, max(start, stop) - inner.start)


def _filler(value_range: ValueRange, dtype: np.dtype) -> tuple[Fill, np.float32]:
    """What brings pixels to float32, and the factor that then makes 0..1 of low..high."""
    low, span = value_range.low, value_range.high - value_range.low
    if span > 0 and low == 0 and dtype.kind != "f" and dtype.itemsize <= 2:
        return np.copyto, np.float32(1 / span)

    def fill(target: np.ndarray, pixels: np.ndarray) -> None:
        unit = (pixels.astype(np.float64) - low) / span if span > 0 else np.zeros(pixels.shape)
        # No-data may be NaN, which would spread to all that is made in one go.
        target[...] = np.nan_to_num(unit, nan=0.0, posinf=0.0, neginf=0.0)

    return fill, np.float32(1)
