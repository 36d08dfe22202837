"""How fast tiers are on the workers at hand, measured on pixels of the image that is to be
enlarged.
"""

import time

import numpy as np

from tierscale.models.contract.upscaler import Upscaler
from tierscale.pipeline.geometry.grid import Rect, Span
from tierscale.pipeline.geometry.layout import Use, Work
from tierscale.pipeline.inference import normalise as colour
from tierscale.pipeline.inference.shard import Device, Read, ShardInput, enlarge
from tierscale.pipeline.plan.plan import Plan

# Side in input pixels of the window that is timed.
SIDE = 128


def seconds_per_pixel(
    plan: Plan, read: Read, tier: int, upscaler: Upscaler, device: Device
) -> float:
    """Seconds of one worker for each input pixel of a window, halo included as in costs; the window
    is from the middle of the image.
    """
    assert plan.levels is not None
    step = plan.scale.denominator
    spans = []
    for length in plan.grid.size:
        start = max(0, (length - SIDE) // 2) // step * step
        spans.append(Span(start, min(length, start + SIDE)))
    window = Rect(*spans)
    pixels = read(window.y.start, window.y.stop, window.x.start, window.x.stop)
    unit = colour.to_unit(pixels, plan.levels, colour.missing(pixels, plan.levels.nodata))
    given = ShardInput(window, np.ascontiguousarray(unit), None)
    work = Work(tier, window, (Use((0, 0), window),), ((0, 0),))
    seconds = []
    for _ in range(2):  # the first round loads and warms up
        began = time.perf_counter()
        enlarge(plan, given, [work], {tier: upscaler}, device)
        seconds.append(time.perf_counter() - began)
    return seconds[-1] / (window.area * colour.plane_count(plan.shape[0], plan.colour))
