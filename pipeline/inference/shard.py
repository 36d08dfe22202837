"""The heart: one shard's windows in, one shard's pixels out. No files and no cluster here.

A shard is a pure function of the plan and its window of the input. It may be computed anywhere,
again, in any order.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tierscale.models.contract.upscaler import Placement
from tierscale.models.runtime.resample import resample
from tierscale.pipeline.geometry.grid import Rect
from tierscale.pipeline.geometry.layout import Tile, Work
from tierscale.pipeline.inference import normalise
from tierscale.pipeline.inference.blend import Piece, stitch
from tierscale.pipeline.inference.normalise import Read
from tierscale.pipeline.plan.plan import Plan

# Rows and columns around a shard that bicubic enlargement of alpha looks at.
BICUBIC_REACH = 2


@dataclass(frozen=True, slots=True)
class ShardInput:
    """What a shard needs of its image.

    rect: input pixels held here. unit: (c, h, w) float32, 0..1, colours as of `straight_unit`.
    mask: where there is no data (h, w), or None. unseen: colours deep under an alpha of 0, or None.
    """

    rect: Rect
    unit: np.ndarray
    mask: np.ndarray | None
    unseen: "Unseen | None" = None


@dataclass(frozen=True, slots=True)
class Unseen:
    """Colours that alpha hides and that touch nothing visible: they are kept as they are.

    mask: where, (h, w). colours: the source's own values, (c, h, w) without alpha.
    """

    mask: np.ndarray
    colours: np.ndarray


def read_input(plan: Plan, read: Read, shard: tuple[int, int], works: Sequence[Work]) -> ShardInput:
    """Read once all that a shard's windows, its alpha and its no-data need."""
    needed = plan.grid.shard_core(shard)
    height, width = plan.grid.size
    margin = max(normalise.FLAT_REACH, BICUBIC_REACH)
    needed = Rect(needed.y.grown(margin, height), needed.x.grown(margin, width))
    for work in works:
        needed = needed.around(work.window)
    nodata = plan.value_range.nodata
    fill = normalise.FILL_REACH if nodata is not None or plan.alpha else 0
    wide = Rect(needed.y.grown(fill, height), needed.x.grown(fill, width))
    pixels = read(wide.y.start, wide.y.stop, wide.x.start, wide.x.stop)
    mask = normalise.missing(pixels, nodata)
    unit = normalise.straight_unit(pixels, plan.value_range, plan.alpha, mask)
    inner = needed.within(wide).slices
    part = np.ascontiguousarray(unit[(slice(None), *inner)])
    unseen = _unseen(pixels, inner) if plan.alpha else None
    return ShardInput(needed, part, None if mask is None else mask[inner], unseen)


def _unseen(pixels: np.ndarray, inner: tuple[slice, slice]) -> Unseen | None:
    """What is hidden deep in the part `inner` of pixels (c, h, w); None: nothing."""
    deep = normalise.deep_inside(normalise.hidden(pixels))[inner]
    return Unseen(deep, pixels[(slice(None, -1), *inner)].copy()) if deep.any() else None


def finish_shard(
    plan: Plan, shard_input: ShardInput, shard: tuple[int, int], pieces: Sequence[Piece]
) -> np.ndarray:
    """Stitch the pieces and bring them to the output's type: (c, H, W)."""
    dtype, nodata = np.dtype(plan.dtype), plan.value_range.nodata
    channels = plan.shape[0] - (plan.alpha is not None)
    unit = stitch(plan.grid, plan.routes, shard, pieces, plan.blend)
    alpha = None if plan.alpha is None else _alpha(plan, shard_input, shard)
    source = shard_input.unit[:channels]
    if alpha is not None and plan.alpha == "premultiplied":
        unit *= np.clip(alpha, 0, 1)
        source = source * shard_input.unit[channels:]
    _hold_ends(plan, shard_input, shard, unit, source)
    result = normalise.from_unit(unit, plan.value_range, dtype)
    if alpha is not None:
        _hold_ends(plan, shard_input, shard, alpha, shard_input.unit[channels:])
        last = normalise.from_unit(alpha, normalise.alpha_range(dtype), dtype)
        _keep_unseen(plan, shard_input, shard, result)
        result = np.concatenate([result, last])
    if shard_input.mask is not None and nodata is not None:
        rows, columns = _nearest(plan, shard_input, shard)
        result[:, shard_input.mask[np.ix_(rows, columns)]] = np.asarray(nodata).astype(dtype)
    return result


def _alpha(plan: Plan, shard_input: ShardInput, shard: tuple[int, int]) -> np.ndarray:
    """The shard's alpha by bicubic: (1, H, W)."""
    rect = shard_input.rect
    window = torch.from_numpy(np.ascontiguousarray(shard_input.unit[None, -1:]))
    placement = Placement(plan.scale, plan.grid.size, ((rect.y.start, rect.x.start),))
    enlarged = resample(window, placement, "bicubic")[0].numpy()
    inner = plan.grid.hr(plan.grid.shard_core(shard)).within(plan.grid.hr(rect))
    return np.ascontiguousarray(enlarged[(slice(None), *inner.slices)])


def _keep_unseen(
    plan: Plan, shard_input: ShardInput, shard: tuple[int, int], colours: np.ndarray
) -> None:
    """Put hidden colours back, each pixel's from the input pixel under it."""
    if shard_input.unseen is not None:
        rows, columns = _nearest(plan, shard_input, shard)
        deep = shard_input.unseen.mask[np.ix_(rows, columns)]
        colours[:, deep] = shard_input.unseen.colours[:, rows[:, None], columns][:, deep]


def _nearest(
    plan: Plan, shard_input: ShardInput, shard: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Row and column in `shard_input` of the input pixel under each output row and column."""
    hr, (height, width) = plan.grid.hr(plan.grid.shard_core(shard)), plan.grid.size
    up, down, rect = plan.scale.numerator, plan.scale.denominator, shard_input.rect
    rows = normalise.nearest(hr.y.start, hr.y.stop, up, down, height) - rect.y.start
    columns = normalise.nearest(hr.x.start, hr.x.stop, up, down, width) - rect.x.start
    return rows, columns


def _hold_ends(
    plan: Plan,
    shard_input: ShardInput,
    shard: tuple[int, int],
    unit: np.ndarray,
    source: np.ndarray,
) -> None:
    """Keep areas that are flat at an end of the range exactly there."""
    for mask, value in normalise.ends(source):
        rows, columns = _nearest(plan, shard_input, shard)
        for channel in range(len(unit)):
            unit[channel][mask[channel][np.ix_(rows, columns)]] = value


def tile_costs(plan: Plan, pieces: Sequence[Piece]) -> dict[Tile, tuple[float, float]]:
    """Multiply-adds and milliseconds of each tile: a window's are split among its tiles by area."""
    costs: dict[Tile, tuple[float, float]] = {}
    for piece in pieces:
        areas = {tile: plan.grid.core(*tile).area for tile in piece.work.owner}
        whole = sum(areas.values())
        for tile, area in areas.items():
            macs, milliseconds = costs.get(tile, (0.0, 0.0))
            costs[tile] = (
                macs + piece.macs * area / whole,
                milliseconds + piece.milliseconds * area / whole,
            )
    return costs
