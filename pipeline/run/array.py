"""The pipeline on an array in memory: no files, no Ray, the same bytes."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import torch

from tierscale.models import registry
from tierscale.models.contract.upscaler import Upscaler
from tierscale.models.scout import Scout
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.formats.registry import open_array
from tierscale.pipeline.geometry.grid import Rect, Span
from tierscale.pipeline.inference import difficulty, statistics
from tierscale.pipeline.inference.enlarge import Device, Engine, enlarge
from tierscale.pipeline.inference.normalise import Read
from tierscale.pipeline.inference.shard import finish_shard, read_input
from tierscale.pipeline.inference.timing import seconds_per_pixel
from tierscale.pipeline.plan.options import Options, Region, parse_scale
from tierscale.pipeline.plan.plan import Draft, Plan, ScoredPlan, Settings
from tierscale.pipeline.plan.policies import Deadline, Policy, in_words, policy_from
from tierscale.pipeline.plan.stored import draft_fields, freeze
from tierscale.pipeline.plan.tiers import Tier, parse_tiers
from tierscale.pipeline.plan.value_range import ValueRange
from tierscale.pipeline.routing.routes import TierTimings, TimeLimit, route
from tierscale.pipeline.run.draft import inspect_image
from tierscale.pipeline.run.prescan import find_value_range
from tierscale.pipeline.run.workers.pool import device_here
from tierscale.pipeline.run.workers.worker import THREADS

AXES = ("cyx", "yxc", "yx")
DEFAULT_BLEND = 4


@dataclass(frozen=True, slots=True)
class EnlargedArray:
    """What became of an array. pixels: (c, H, W). cost: multiply-adds executed."""

    pixels: np.ndarray
    cost: float
    plan: Plan


def upscale_array(
    array: Any,
    scale: float | str | Fraction = 4,
    *,
    tiers: str | Sequence[str] | None = None,
    policy: str | Policy | None = None,
    budget: float | None = None,
    max_loss: float | None = None,
    deadline: float | None = None,
    threshold: float | None = None,
    tile: int = 128,
    blend: int | None = None,
    axes: str = "cyx",
) -> np.ndarray:
    """Enlarge a numpy, dask or zarr array; the result is a numpy array of the same axes and type.

    array: uint8, uint16 or float32 with the given axes, "cyx", "yxc" or "yx"; two dimensions are
    always "yx". Three channels are taken as RGB and four as RGBA. scale: a number or a fraction
    such as "5/2". tiers: names from light to full, or one text with commas. policy: a policy, or
    its name as in the command; budget (share of the full cost), max_loss (dB), deadline (seconds)
    or threshold (squared error) alone imply their own. tile, blend: input pixels.

    Raises Refused (a ValueError) with one sentence when something cannot work.
    """
    if not hasattr(array, "shape"):
        array = np.asarray(array)
    axes = "yx" if np.ndim(array) == 2 else axes
    if axes not in AXES:
        raise Refused(f"axes {axes!r} are not known; choose one of {', '.join(AXES)}")
    numbers = {"budget": budget, "max_loss": max_loss, "deadline": deadline, "threshold": threshold}
    chosen = _policy_of(policy, numbers)
    labels = parse_tiers(tiers) if isinstance(tiers, str) else tiers
    options = Options(
        scale=parse_scale(scale),
        tiers=None if labels is None else tuple(labels),
        policy=chosen,
        tile=tile,
        blend=DEFAULT_BLEND if blend is None else blend,
    )
    pixels = enlarge_array(array, options, axes).pixels
    if axes == "yx":
        return pixels[0]
    return np.ascontiguousarray(pixels.transpose(1, 2, 0)) if axes == "yxc" else pixels


def _policy_of(policy: str | Policy | None, numbers: Mapping[str, float | None]) -> Policy:
    """The policy of upscale_array(). Refused: a number would be ignored."""
    if policy is None or isinstance(policy, str):
        return policy_from(policy, numbers)
    ignored = [name for name, value in numbers.items() if value is not None]
    if ignored:
        raise Refused(
            f"{ignored[0]} would be ignored beside the policy"
            f" {in_words(policy)}; leave one of the two out"
        )
    return policy


def enlarge_array(array: Any, options: Options, axes: str = "cyx") -> EnlargedArray:
    """As upscale_array(), with the plan and the cost."""
    source = open_array(array, axes)
    inspection = inspect_image(source, options, device_here(options.device))
    work = ArrayWork(inspection.draft, cropped(source.read, options.region))
    plan = work.plan(inspection.scorer.scout)
    out = np.zeros(plan.hr_shape, np.dtype(plan.dtype))
    costs: list[float] = []
    engine = work.engine(plan.settings)

    def one(shard: tuple[int, int]) -> None:
        works = plan.works(shard)
        shard_input = read_input(plan, work.read, shard, works)
        pieces = enlarge(engine, shard_input, works)
        place = plan.grid.hr(plan.grid.shard_core(shard))
        out[(slice(None), *place.slices)] = finish_shard(plan, shard_input, shard, pieces)
        costs.append(sum(piece.macs for piece in pieces))

    before = torch.get_num_threads()
    try:
        # As many torch threads in each of them as workers have, so that they give a plan's bytes.
        with ThreadPoolExecutor(
            work.workers, initializer=torch.set_num_threads, initargs=(THREADS,)
        ) as executor:
            list(executor.map(one, plan.grid.all_shards()))
    finally:
        torch.set_num_threads(before)
    return EnlargedArray(out, sum(costs), plan)


def cropped(read: Read, region: Region | None) -> Read:
    """A reader that counts from the corner of a region (x, y, width, height)."""
    if region is None:
        return read
    left, top = region[0], region[1]
    return lambda y0, y1, x0, x1: read(top + y0, top + y1, left + x0, left + x1)


@dataclass(frozen=True, slots=True)
class ArrayWork:
    """An array on its way: the steps of a run, in this thread."""

    draft: Draft
    read: Read

    @property
    def workers(self) -> int:
        """Threads that enlarge."""
        return len(os.sched_getaffinity(0)) if self.draft.device == "cpu" else 1

    def plan(self, scout: Scout | None) -> Plan:
        """The plan with everything that the pre-pass finds."""
        value_range = find_value_range(self.draft, self._measure)
        scores = self._scores(value_range, scout)
        settings = statistics.tier_settings(self.draft, partial(self._read_difficulty, value_range))
        known = draft_fields(self.draft)
        scored = ScoredPlan(**known, value_range=value_range, settings=settings, scores=scores)
        return freeze(scored, route(scored, self._timings(scored)))

    def engine(self, settings: Settings) -> Engine:
        """All tiers, loaded."""
        draft = self.draft
        upscalers = {index: self._upscaler(tier) for index, tier in enumerate(draft.tiers)}
        return Engine(draft, upscalers, settings, Device(draft.device))

    def _upscaler(self, tier: Tier) -> Upscaler:
        return registry.load_weights(tier.name, self.draft.device, tier.weights).upscaler

    def _measure(self, rows: Sequence[Span]) -> list[tuple[float, float]]:
        draft = self.draft
        return [
            difficulty.measure(self.read, span, draft.shape[2], draft.source.nodata, draft.alpha)
            for span in rows
        ]

    def _scores(self, value_range: ValueRange, scout: Scout | None) -> np.ndarray:
        (rows, columns), tiers = self.draft.grid.tiles, len(self.draft.tiers)
        if self.draft.scoring == "none":
            return np.zeros((rows * columns, tiers), np.float32)
        scores = difficulty.score(self.draft, value_range, self.read, Span(0, rows), scout)
        return scores.reshape(rows * columns, tiers)

    def _read_difficulty(
        self, value_range: ValueRange, tier: int, places: Sequence[Sequence[Rect]]
    ) -> list[statistics.Histogram]:
        upscaler = self._upscaler(self.draft.tiers[tier])
        if not isinstance(upscaler, statistics.Automatic):
            raise Refused(f"{self.draft.tiers[tier].label} does not decide by statistics")
        look = partial(statistics.measure_difficulty, self.draft, value_range, self.read, upscaler)
        return [look(some, self.draft.device) for some in places]

    def _timings(self, scored: ScoredPlan) -> TierTimings | None:
        """The speeds by which a deadline is kept; its seconds begin here."""
        if not isinstance(scored.policy, Deadline):
            return None
        engine, seconds = self.engine(scored.settings), scored.policy.seconds
        speeds = tuple(
            seconds_per_pixel(engine, scored.value_range, self.read, tier)
            for tier in range(len(scored.tiers))
        )
        return TierTimings(TimeLimit(lambda: seconds, self.workers), speeds)
