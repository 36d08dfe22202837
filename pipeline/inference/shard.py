"""The heart: one shard's windows in, one shard's pixels out. No files and no cluster here.

A shard is a pure function of the plan and its window of the input. It may be computed anywhere,
again, in any order.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from tierscale.models.contract.upscaler import Placement, Upscaler
from tierscale.models.runtime.resample import resample
from tierscale.pipeline.geometry.grid import Rect, Span
from tierscale.pipeline.geometry.layout import Piece, Tile, Work, stitch
from tierscale.pipeline.inference import normalise as colour
from tierscale.pipeline.inference.normalise import ValueRange
from tierscale.pipeline.plan.plan import Plan

Read = Callable[[int, int, int, int], np.ndarray]


@dataclass(frozen=True, slots=True)
class ShardInput:
    """What a shard needs of its image.

    rect: input pixels held here. unit: (c, h, w) float32, 0..1. mask: where there is no data (h,
    w), or None.
    """

    rect: Rect
    unit: np.ndarray
    mask: np.ndarray | None


@dataclass(slots=True)
class Device:
    """Where networks run, and how much they may take at a time.

    batches: windows in a call, by tier, once memory ran out there; empty until then.
    """

    name: str = "cpu"
    batches: dict[str, int] = field(default_factory=dict)


def read_input(plan: Plan, read: Read, shard: tuple[int, int], works: Sequence[Work]) -> ShardInput:
    """Read once all that a shard's windows, its alpha and its no-data need."""
    assert plan.levels is not None
    needed = plan.grid.shard_core(shard)
    height, width = plan.grid.size
    margin = max(colour.FLAT_REACH, 2)
    needed = Rect(needed.y.grown(margin, height), needed.x.grown(margin, width))
    for work in works:
        needed = needed.around(work.window)
    fill = colour.FILL_REACH if plan.levels.nodata is not None else 0
    wide = Rect(needed.y.grown(fill, height), needed.x.grown(fill, width))
    pixels = read(wide.y.start, wide.y.stop, wide.x.start, wide.x.stop)
    mask = colour.missing(pixels, plan.levels.nodata)
    unit = _unit(plan, pixels, mask)
    inner = needed.within(wide).slices
    return ShardInput(
        needed,
        np.ascontiguousarray(unit[(slice(None), *inner)]),
        None if mask is None else mask[inner],
    )


def _alpha_levels(plan: Plan) -> ValueRange:
    """Alpha has its type's full range, whatever the colours' range is."""
    dtype = np.dtype(plan.dtype)
    high = 1.0 if dtype.kind == "f" else float(np.iinfo(dtype).max)
    return ValueRange(0.0, high, 0.0, high)


def _unit(plan: Plan, pixels: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    assert plan.levels is not None
    if plan.alpha is None:
        return colour.to_unit(pixels, plan.levels, mask)
    parts = [
        colour.to_unit(pixels[:-1], plan.levels, mask),
        colour.to_unit(pixels[-1:], _alpha_levels(plan)),
    ]
    return np.concatenate(parts)


def enlarge(
    plan: Plan,
    given: ShardInput,
    works: Sequence[Work],
    upscalers: Mapping[int, Upscaler],
    device: Device,
) -> list[Piece]:
    """Enlarge windows, each by its tier; upscalers: by tier index. Windows of one tier and shape
    share batches of fixed size.
    """
    planes = colour.planes(given.unit, plan.colour, plan.alpha)
    groups: dict[tuple[int, tuple[int, int, int, int]], list[Work]] = {}
    for work in works:
        hr = plan.grid.hr(work.window)
        shape = (work.window.y.length, work.window.x.length, hr.y.length, hr.x.length)
        groups.setdefault((work.tier, shape), []).append(work)
    pieces: list[Piece] = []
    for (tier, _), alike in groups.items():
        pieces.extend(
            _enlarge_alike(
                plan, given.rect, planes, alike, upscalers[tier], plan.tiers[tier].label, device
            )
        )
    return pieces


def _enlarge_alike(
    plan: Plan,
    held: Rect,
    planes: np.ndarray,
    works: Sequence[Work],
    upscaler: Upscaler,
    label: str,
    device: Device,
) -> list[Piece]:
    """Enlarge windows of one tier and one shape; each plane of each window is one entry of a
    batch.
    """
    tier = works[0].tier
    batch = device.batches.get(label, plan.batch[tier])
    entries = [(work, plane) for work in works for plane in range(len(planes))]
    results: dict[int, list[np.ndarray]] = {id(work): [] for work in works}
    macs: dict[int, float] = {id(work): 0.0 for work in works}
    taken: dict[int, float] = {id(work): 0.0 for work in works}
    cut: set[int] = set()
    while entries:
        now, rest = entries[:batch], entries[batch:]
        began = time.perf_counter()
        windows = [
            planes[(plane, slice(None), *work.window.within(held).slices)] for work, plane in now
        ]
        try:
            pixels, costs = _call(
                plan, upscaler, windows, [work.window for work, _ in now], tier, batch, device.name
            )
        except torch.OutOfMemoryError:
            if batch > 1:
                batch = batch // 2
                device.batches[label] = batch
                continue
            cut.add(id(now[0][0]))
            parts = [_in_parts(plan, upscaler, windows[0], now[0][0].window, tier, device.name)]
            pixels, costs = [part[0] for part in parts], [part[1] for part in parts]
        entries = rest
        milliseconds = (time.perf_counter() - began) * 1000 / len(now)
        for (work, _), enlarged, cost in zip(now, pixels, costs, strict=True):
            kept = plan.grid.hr(work.keep).within(plan.grid.hr(work.window))
            part = enlarged[(slice(None), *kept.slices)]
            # What is not kept goes with the window, unless it would stay for the sake of one window
            # of many.
            results[id(work)].append(part if batch == 1 else np.ascontiguousarray(part))
            macs[id(work)] += cost
            taken[id(work)] += milliseconds
        del pixels, enlarged, part
    made = []
    for work in works:
        merged = colour.merge(results.pop(id(work)), plan.colour)
        made.append(
            Piece(work, merged, macs[id(work)], taken[id(work)], 0 if id(work) in cut else batch)
        )
    return made


def _call(
    plan: Plan,
    upscaler: Upscaler,
    windows: Sequence[np.ndarray],
    places: Sequence[Rect],
    tier: int,
    batch: int,
    device: str,
) -> tuple[list[np.ndarray], list[float]]:
    """Run one batch, filled up with zeros to its fixed size: results do not depend on how many
    windows there are.
    """
    stack = np.zeros((batch, *windows[0].shape), np.float32)
    for index, window in enumerate(windows):
        stack[index] = window
    origins = tuple((rect.y.start, rect.x.start) for rect in places)
    origins += (origins[0],) * (batch - len(origins))
    place = Placement(plan.scale, plan.grid.size, origins)
    assert plan.given is not None
    with torch.inference_mode():
        made = upscaler(
            torch.from_numpy(stack).to(device), place, plan.tiers[tier].effort, plan.given[tier]
        )
        pixels = made.pixels.float().cpu().numpy()
    count = len(windows)
    return list(pixels[:count]), made.macs[:count].tolist()


def _in_parts(
    plan: Plan, upscaler: Upscaler, window: np.ndarray, place: Rect, tier: int, device: str
) -> tuple[np.ndarray, float]:
    """One window in halves along its longer side, and those in halves again while memory does not
    suffice.
    """
    axis = 0 if place.y.length >= place.x.length else 1
    span = place.y if axis == 0 else place.x
    margin = (upscaler.reach if upscaler.reach is not None else plan.halo) + 1
    step = plan.scale.denominator
    middle = span.start + span.length // 2 // step * step
    if span.length < 4 * margin or middle == span.start:
        raise torch.OutOfMemoryError(
            f"a window of {place.y.length}x{place.x.length} pixels does not fit in the memory of"
            f" {device}"
        )
    pixels, cost = [], 0.0
    for core in (Span(span.start, middle), Span(middle, span.stop)):
        wide = Span(
            max(span.start, (core.start - margin) // step * step),
            min(span.stop, core.stop + margin),
        )
        part = Rect(wide, place.x) if axis == 0 else Rect(place.y, wide)
        cut = window[(slice(None), *part.within(place).slices)]
        try:
            made, costs = _call(plan, upscaler, [cut], [part], tier, 1, device)
            enlarged, macs = made[0], costs[0]
        except torch.OutOfMemoryError:
            enlarged, macs = _in_parts(plan, upscaler, cut, part, tier, device)
        kept = Rect(core, place.x) if axis == 0 else Rect(place.y, core)
        pixels.append(
            enlarged[(slice(None), *plan.grid.hr(kept).within(plan.grid.hr(part)).slices)]
        )
        cost += macs
    return np.concatenate(pixels, axis=1 + axis), cost


def finish(
    plan: Plan, given: ShardInput, shard: tuple[int, int], pieces: Sequence[Piece]
) -> np.ndarray:
    """Stitch the pieces and bring them to the output's type: (c, H, W)."""
    assert plan.levels is not None and plan.routes is not None
    dtype = np.dtype(plan.dtype)
    channels = plan.shape[0] - (plan.alpha is not None)
    unit = stitch(plan.grid, plan.routes, shard, pieces, channels, plan.blend)
    alpha = None if plan.alpha is None else _alpha(plan, given, shard)
    if alpha is not None and plan.alpha == "premultiplied":
        unit *= np.clip(alpha, 0, 1)
    _hold_ends(plan, given, shard, unit, given.unit[:channels])
    result = colour.from_unit(unit, plan.levels, dtype)
    if alpha is not None:
        _hold_ends(plan, given, shard, alpha, given.unit[channels:])
        result = np.concatenate([result, colour.from_unit(alpha, _alpha_levels(plan), dtype)])
    if given.mask is not None and plan.levels.nodata is not None:
        rows, columns = _nearest(plan, given, shard)
        result[:, given.mask[np.ix_(rows, columns)]] = np.asarray(plan.levels.nodata).astype(dtype)
    return result


def _alpha(plan: Plan, given: ShardInput, shard: tuple[int, int]) -> np.ndarray:
    """The shard's alpha by bicubic: (1, H, W)."""
    window = torch.from_numpy(np.ascontiguousarray(given.unit[None, -1:]))
    place = Placement(plan.scale, plan.grid.size, ((given.rect.y.start, given.rect.x.start),))
    enlarged = resample(window, place, "bicubic")[0].numpy()
    inner = plan.grid.hr(plan.grid.shard_core(shard)).within(plan.grid.hr(given.rect))
    return np.ascontiguousarray(enlarged[(slice(None), *inner.slices)])


def _nearest(
    plan: Plan, given: ShardInput, shard: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Row and column in `given` of the input pixel under each output row and column of the
    shard.
    """
    hr, (height, width), scale = (
        plan.grid.hr(plan.grid.shard_core(shard)),
        plan.grid.size,
        plan.scale,
    )
    rows = (
        colour.nearest(hr.y.start, hr.y.stop, scale.numerator, scale.denominator, height)
        - given.rect.y.start
    )
    columns = (
        colour.nearest(hr.x.start, hr.x.stop, scale.numerator, scale.denominator, width)
        - given.rect.x.start
    )
    return rows, columns


def _hold_ends(
    plan: Plan, given: ShardInput, shard: tuple[int, int], unit: np.ndarray, source: np.ndarray
) -> None:
    """Keep areas that are flat at an end of the range exactly there."""
    for mask, value in colour.ends(source):
        rows, columns = _nearest(plan, given, shard)
        for channel in range(len(unit)):
            unit[channel][mask[channel][np.ix_(rows, columns)]] = value


def tile_costs(plan: Plan, pieces: Sequence[Piece]) -> dict[Tile, tuple[float, float]]:
    """Multiply-adds and milliseconds of each tile: a window's are shared out among its tiles by
    their area.
    """
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
