"""The pipeline on an array in memory: no files, no Ray, the same bytes."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import torch

from tierscale.models import registry as models
from tierscale.models.contract.upscaler import Upscaler
from tierscale.pipeline.dataset.manifest import parse_scale, parse_tiers
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.formats.registry import open_array
from tierscale.pipeline.geometry.grid import Rect, Span
from tierscale.pipeline.inference import difficulty
from tierscale.pipeline.inference import statistics as automatic
from tierscale.pipeline.inference.shard import Device, Read, enlarge, finish, read_input
from tierscale.pipeline.inference.timing import seconds_per_pixel
from tierscale.pipeline.plan.plan import Options, Plan, policy_of
from tierscale.pipeline.routing import routes as choosing
from tierscale.pipeline.run import draft as prepare
from tierscale.pipeline.run.pool import device_here

AXES = ("cyx", "yxc", "yx")


@dataclass(frozen=True, slots=True)
class Enlarged:
    """What became of an array. pixels: (c, H, W). cost: multiply-adds executed. plan: with levels
    and routes.
    """

    pixels: np.ndarray
    cost: float
    plan: Plan


def upscale_array(
    array: Any,
    scale: float | str | Fraction = 4,
    *,
    tiers: str | list[str] | tuple[str, ...] | None = None,
    policy: str = "adaptive",
    budget: float | None = None,
    threshold: float | None = None,
    tile: int = 128,
    blend: int | None = None,
    axes: str = "cyx",
) -> np.ndarray:
    """Enlarge a numpy, dask or zarr array; the result is a numpy array of the same axes and type.

    array: uint8, uint16 or float32 with the given axes, "cyx", "yxc" or "yx"; two dimensions are
    always "yx". Three channels are taken as RGB and four as RGBA. tiers: names from cheap to dear,
    or one text with commas. policy: as of the command; a budget or a threshold alone implies its
    own. Refused (a ValueError): what cannot work.
    """
    if not hasattr(array, "shape"):
        array = np.asarray(array)
    if isinstance(tiers, str):
        tiers = parse_tiers(tiers)
    axes = "yx" if np.ndim(array) == 2 else axes
    if axes not in AXES:
        raise Refused(f"axes {axes!r} are not known; choose one of {', '.join(AXES)}")
    options = Options(
        scale=parse_scale(scale),
        tiers=None if tiers is None else tuple(tiers),
        policy=policy_of(
            None if policy == "adaptive" else policy, {"budget": budget, "threshold": threshold}
        ),
        budget=budget,
        threshold=threshold,
        tile=tile,
        blend=4 if blend is None else blend,
    )
    pixels = enlarge_array(array, options, axes).pixels
    return {
        "yx": lambda: pixels[0],
        "yxc": lambda: np.ascontiguousarray(pixels.transpose(1, 2, 0)),
        "cyx": lambda: pixels,
    }[axes]()


def enlarge_array(array: Any, options: Options, axes: str = "cyx") -> Enlarged:
    """As upscale_array(), with the plan and the cost."""
    source = open_array(array, axes)
    draft, found = prepare.draft_of(source, options, device_here(options.device))
    read = cropped(source.read, options.region)

    def measure(rows: list[Span]) -> list[tuple[float, float]]:
        return [
            difficulty.measure(read, span, draft.shape[2], found.nodata, draft.alpha)
            for span in rows
        ]

    levels = prepare.levels(draft, options.value_range, found.nodata, measure)
    scored = replace(draft, levels=levels)
    scored = replace(scored, given=automatic.given(scored, partial(_look, scored, read)))
    workers = max(1, len(os.sched_getaffinity(0)) if draft.device == "cpu" else 1)
    plan = draft.frozen(levels, _route(scored, read, workers), scored.given or ())
    out = np.zeros(plan.hr_shape, np.dtype(plan.dtype))
    costs: list[float] = []
    before, upscalers = torch.get_num_threads(), _upscalers(plan)

    def one(shard: tuple[int, int]) -> None:
        works = plan.works(shard)
        given = read_input(plan, read, shard, works)
        pieces = enlarge(plan, given, works, upscalers, Device(plan.device))
        out[(slice(None), *plan.grid.hr(plan.grid.shard_core(shard)).slices)] = finish(
            plan, given, shard, pieces
        )
        costs.append(sum(piece.macs for piece in pieces))

    try:
        # As many torch threads in each of them as the plan says, so that they give the plan's
        # bytes.
        with ThreadPoolExecutor(
            workers, initializer=torch.set_num_threads, initargs=(plan.threads,)
        ) as executor:
            list(executor.map(one, plan.grid.all_shards()))
    finally:
        torch.set_num_threads(before)
    return Enlarged(out, sum(costs), plan)


def cropped(read: Read, region: tuple[int, int, int, int] | None) -> Read:
    """A reader that counts from the corner of a region (x, y, width, height)."""
    if region is None:
        return read
    left, top = region[0], region[1]
    return lambda y0, y1, x0, x1: read(top + y0, top + y1, left + x0, left + x1)


def _upscalers(plan: Plan) -> dict[int, Upscaler]:
    return {index: models.load(tier.name, plan.device) for index, tier in enumerate(plan.tiers)}


def _look(plan: Plan, read: Read, tier: int, places: list[list[Rect]]) -> list[automatic.Seen]:
    upscaler = models.load(plan.tiers[tier].name, plan.device)
    return [automatic.look_at(plan, read, upscaler, some, plan.device) for some in places]


def _route(plan: Plan, read: Read, workers: int) -> np.ndarray:
    """The tier of every tile; the seconds of a deadline begin here."""
    time = None
    if plan.policy["name"] == "deadline":
        clock, device = (
            choosing.TimeLimit(lambda: plan.policy["deadline"], workers),
            Device(plan.device),
        )
        speeds = [
            seconds_per_pixel(plan, read, tier, upscaler, device)
            for tier, upscaler in _upscalers(plan).items()
        ]
        time = choosing.TierTimings(clock, tuple(speeds))
    return choosing.route(plan, _scores(plan, read), time)


def _scores(plan: Plan, read: Read) -> np.ndarray:
    rows, columns = plan.grid.tiles
    if plan.scores == "none":
        return np.zeros((rows * columns, len(plan.tiers)), np.float32)
    assert plan.levels is not None
    found = difficulty.score(
        read,
        plan.grid,
        Span(0, rows),
        plan.scout,
        len(plan.tiers),
        plan.levels,
        plan.colour,
        plan.alpha,
    )
    return found.reshape(rows * columns, len(plan.tiers))
