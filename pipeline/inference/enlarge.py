"""Windows through networks: batches of one tier and shape, and what is done without memory."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from tierscale.models.contract.upscaler import Placement, Upscaler
from tierscale.pipeline.errors import Damaged
from tierscale.pipeline.geometry.grid import Rect, Span
from tierscale.pipeline.geometry.layout import Work
from tierscale.pipeline.inference import normalise
from tierscale.pipeline.inference.blend import Piece
from tierscale.pipeline.inference.shard import ShardInput
from tierscale.pipeline.plan.plan import Draft, Settings


@dataclass(slots=True)
class Device:
    """Where networks run, and how much they may take at a time.

    batches: windows in a call, by tier, once memory ran out there; empty until then.
    """

    name: str = "cpu"
    batches: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Engine:
    """A draft's tiers, loaded. upscalers: by tier index. settings: of all tiers, see Plan."""

    draft: Draft
    upscalers: Mapping[int, Upscaler]
    settings: Settings
    device: Device

    def run(
        self, windows: Sequence[np.ndarray], places: Sequence[Rect], tier: int, batch: int
    ) -> list[tuple[np.ndarray, float]]:
        """Pixels and multiply-adds of windows (3, h, w) of one shape, at most `batch` of them.

        The batch is filled up with zeros to its fixed size: results do not depend on how many
        windows there are.
        """
        draft = self.draft
        stack = np.zeros((batch, *windows[0].shape), np.float32)
        for index, window in enumerate(windows):
            stack[index] = window
        origins = tuple((rect.y.start, rect.x.start) for rect in places)
        origins += (origins[0],) * (batch - len(origins))
        placement = Placement(draft.scale, draft.grid.size, origins)
        on_device = torch.from_numpy(stack).to(self.device.name)
        effort, settings = draft.tiers[tier].effort, self.settings[tier]
        with torch.inference_mode():
            upscaled = self.upscalers[tier](on_device, placement, effort, settings)
            pixels = upscaled.pixels.float().cpu().numpy()
        if not math.isfinite(float(pixels.sum())):
            raise Damaged(
                f"{draft.tiers[tier].label} made values that are no finite numbers of the window at"
                f" {places[0].x.start}, {places[0].y.start}; take another network"
            )
        count = len(windows)
        return list(zip(pixels[:count], upscaled.macs[:count].tolist(), strict=True))


@dataclass(slots=True)
class _Result:
    """What has been made of one window so far: a part for each RGB triple, and what they took."""

    parts: list[np.ndarray] = field(default_factory=list)
    macs: float = 0.0
    milliseconds: float = 0.0
    cut: bool = False


def enlarge(engine: Engine, shard_input: ShardInput, works: Sequence[Work]) -> list[Piece]:
    """Enlarge windows, each by its tier; those of a tier and shape share batches of fixed size."""
    draft = engine.draft
    colours = normalise.rgb_batch(shard_input.unit, draft.colour)
    groups: dict[tuple[int, tuple[int, int, int, int]], list[Work]] = {}
    for work in works:
        hr = draft.grid.hr(work.window)
        shape = (work.window.y.length, work.window.x.length, hr.y.length, hr.x.length)
        groups.setdefault((work.tier, shape), []).append(work)
    pieces: list[Piece] = []
    for alike in groups.values():
        pieces.extend(_enlarge_alike(engine, shard_input.rect, colours, alike))
    return pieces


def _enlarge_alike(
    engine: Engine, held: Rect, colours: np.ndarray, works: Sequence[Work]
) -> list[Piece]:
    """Enlarge windows of one tier and shape; each RGB triple of each is one entry of a batch."""
    draft, tier, batches = engine.draft, works[0].tier, engine.device.batches
    label = draft.tiers[tier].label
    batch = batches.get(label, draft.batch[tier])
    entries = [(work, triple) for work in works for triple in range(len(colours))]
    results = {id(work): _Result() for work in works}
    while entries:
        now, rest = entries[:batch], entries[batch:]
        began = time.perf_counter()
        windows = [
            colours[(triple, slice(None), *work.window.within(held).slices)] for work, triple in now
        ]
        try:
            enlarged = engine.run(windows, [work.window for work, _ in now], tier, batch)
        except torch.OutOfMemoryError:
            if batch > 1:
                batch = batches[label] = batch // 2
                continue
            results[id(now[0][0])].cut = True
            enlarged = [_in_halves(engine, windows[0], now[0][0].window, tier)]
        entries = rest
        milliseconds = (time.perf_counter() - began) * 1000 / len(now)
        for (work, _), (pixels, macs) in zip(now, enlarged, strict=True):
            result = results[id(work)]
            result.parts.append(_used_part(draft, work, pixels, batch))
            result.macs += macs
            result.milliseconds += milliseconds
        del pixels, enlarged
    return [_piece(draft, work, results.pop(id(work)), batch) for work in works]


def _used_part(draft: Draft, work: Work, pixels: np.ndarray, batch: int) -> np.ndarray:
    """The part of a window's result that is used at all."""
    used = draft.grid.hr(work.valid).within(draft.grid.hr(work.window))
    part = pixels[(slice(None), *used.slices)]
    # What is not used goes with the window, unless it would stay for the sake of one window of
    # many.
    return part if batch == 1 else np.ascontiguousarray(part)


def _piece(draft: Draft, work: Work, result: _Result, batch: int) -> Piece:
    merged = normalise.merge(result.parts, draft.colour)
    return Piece(work, merged, result.macs, result.milliseconds, 0 if result.cut else batch)


def _in_halves(
    engine: Engine, window: np.ndarray, place: Rect, tier: int
) -> tuple[np.ndarray, float]:
    """One window in halves along its longer side, and those in halves again where need be."""
    draft, reach = engine.draft, engine.upscalers[tier].reach
    axis = 0 if place.y.length >= place.x.length else 1
    span = place.y if axis == 0 else place.x
    margin = (draft.halo if reach is None else reach) + 1
    step = math.lcm(draft.scale.denominator, draft.tiers[tier].multiple)
    middle = span.start + span.length // 2 // step * step
    if span.length < 4 * margin or middle == span.start:
        raise torch.OutOfMemoryError(
            f"a window of {place.y.length}x{place.x.length} pixels does not fit in the memory of"
            f" {engine.device.name}"
        )
    parts, cost = [], 0.0
    for core in (Span(span.start, middle), Span(middle, span.stop)):
        start = max(span.start, (core.start - margin) // step * step)
        wide = Span(start, min(span.stop, core.stop + margin))
        part, kept = (
            Rect(one, place.x) if axis == 0 else Rect(place.y, one) for one in (wide, core)
        )
        pixels, macs = _half(engine, window[(slice(None), *part.within(place).slices)], part, tier)
        used = draft.grid.hr(kept).within(draft.grid.hr(part))
        parts.append(pixels[(slice(None), *used.slices)])
        cost += macs
    return np.concatenate(parts, axis=1 + axis), cost


def _half(engine: Engine, window: np.ndarray, place: Rect, tier: int) -> tuple[np.ndarray, float]:
    """A half of a window, in halves again where memory does not suffice for it."""
    try:
        return engine.run([window], [place], tier, 1)[0]
    except torch.OutOfMemoryError:
        return _in_halves(engine, window, place, tier)
