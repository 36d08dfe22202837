"""How fast tiers are on the workers at hand, measured on pixels of the image to be enlarged."""

import time

import numpy as np

from tierscale.pipeline.geometry.grid import Rect, Span
from tierscale.pipeline.geometry.layout import Use, Work
from tierscale.pipeline.inference.enlarge import Engine, enlarge
from tierscale.pipeline.inference.normalise import Read, missing, straight_unit
from tierscale.pipeline.inference.shard import ShardInput
from tierscale.pipeline.plan.value_range import ValueRange

# Side in input pixels of the window that is timed.
SIDE = 128


def seconds_per_pixel(engine: Engine, value_range: ValueRange, read: Read, tier: int) -> float:
    """Seconds of one worker for each input pixel of a window from the middle of the image.

    The halo is counted as pixels, as it is in costs.
    """
    draft = engine.draft
    step = draft.scale.denominator
    spans = []
    for length in draft.grid.size:
        start = max(0, (length - SIDE) // 2) // step * step
        spans.append(Span(start, min(length, start + SIDE)))
    window = Rect(*spans)
    pixels = read(window.y.start, window.y.stop, window.x.start, window.x.stop)
    mask = missing(pixels, value_range.nodata)
    unit = straight_unit(pixels, value_range, draft.alpha, mask)
    shard_input = ShardInput(window, np.ascontiguousarray(unit), None)
    work = Work(tier, window, (Use((0, 0), window),), ((0, 0),))
    seconds = []
    for _ in range(2):  # the first round loads and warms up
        began = time.perf_counter()
        enlarge(engine, shard_input, [work])
        seconds.append(time.perf_counter() - began)
    return seconds[-1] / (window.area * draft.rgb_count)
