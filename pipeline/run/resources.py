"""What carrying out a plan takes: memory, disk, time. What does not fit is refused before any pixel
is enlarged.
"""

import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from tierscale.pipeline.errors import Refused
from tierscale.pipeline.formats.arrays.ingest import CHUNK
from tierscale.pipeline.formats.arrays.ingested import AT_ONCE
from tierscale.pipeline.geometry.grid import tile_length
from tierscale.pipeline.inference.normalise import plane_count
from tierscale.pipeline.output.store import bytes_at, level_sizes
from tierscale.pipeline.plan.plan import Plan
from tierscale.pipeline.routing.costs import full_cost, planned_cost
from tierscale.pipeline.routing.routes import areas, beside
from tierscale.pipeline.run.inspect import SourceInfo
from tierscale.pipeline.storage.object_path import ObjectPath
from tierscale.pipeline.storage.paths import place

# Measured on Linux with torch 2.13: what a worker process takes before it is given an image, and
# Ray's own processes together.
WORKER_BYTES = 650 << 20
DRIVER_BYTES = 700 << 20
# A tile's row in the table, in the driver.
TILE_BYTES = 1 << 10


def memory(plan: Plan, found: SourceInfo, workers: int) -> int:
    """Bytes that all processes together take at most: a sum of bounds.

    None grows with the image but the tile table, and what the decoder of a format takes that can
    only be decoded whole.
    """
    channels = plan.shape[0]
    planes = plane_count(channels, plan.colour)
    itemsize = np.dtype(plan.dtype).itemsize
    tall, wide = (side * plan.tile + 2 * plan.halo for side in plan.grid.shard_tiles)
    window = min(tall, plan.grid.size[0]) * min(wide, plan.grid.size[1])
    hr_shard = plan.grid.hr_shard[0] * plan.grid.hr_shard[1]
    networks = (
        max(tier.memory * batch for tier, batch in zip(plan.tiers, plan.batch, strict=True))
        * window
    )
    reading = window * channels * (itemsize + 4) + window * planes * 12
    # Pieces, the stitched shard, and its bytes on the way to the store.
    writing = hr_shard * (channels * 4 * 3 + channels * itemsize * 3)
    tiles = plan.grid.tiles[0] * plan.grid.tiles[1] * TILE_BYTES
    # One worker ingests before any enlarges; from then on all read the copy, as they otherwise read
    # the source.
    ingesting = found.decode_bytes if found.needs_ingest else 0
    decoding = (
        2 * AT_ONCE * CHUNK**2 * channels * itemsize if found.needs_ingest else found.decode_bytes
    )
    enlarging = workers * (networks + reading + writing + decoding)
    return int(_least(workers) + tiles + max(ingesting, enlarging))


def check_memory(plan: Plan, found: SourceInfo, allowed: int | None, workers: int) -> None:
    """Refuse a plan that does not fit, with the numbers and what would fit."""
    limit = _limit(allowed)
    needed = memory(plan, found, workers)
    if needed <= limit:
        return
    advice = f"--max-memory {needed} on a machine that has it"
    sides = {
        tile_length(plan.tile // part, plan.scale) for part in (2, 4, 8) if plan.tile // part >= 8
    }
    for tile in sorted(sides - {plan.tile}, reverse=True):
        if memory(replace(plan, tile=tile), found, workers) <= limit:
            advice = f"--tile {tile}, or --max-memory {needed}"
            break
    raise Refused(
        f"{found.uri}: the plan needs {needed / 2**30:.2f} GiB with {workers} workers, but"
        f" {limit / 2**30:.2f} GiB may be used; what would fit: {advice}"
    )


def check_least(allowed: int | None, workers: int) -> None:
    """Refuse an amount of memory that not even the smallest image fits in, with so many workers."""
    limit, needed = _limit(allowed), _least(workers)
    if needed > limit:
        raise Refused(
            f"any image needs {needed / 2**30:.2f} GiB and more with {workers} workers, but"
            f" {limit / 2**30:.2f} GiB may be used; raise --max-memory, or lower --workers"
        )


def _least(workers: int) -> int:
    """Bytes of the driver and so many workers before any image."""
    return DRIVER_BYTES + workers * WORKER_BYTES


def _limit(allowed: int | None) -> int:
    """Bytes that may be used: as told, or most of this machine's."""
    return allowed if allowed is not None else int(psutil.virtual_memory().total * 0.9)


def disk(plan: Plan) -> int:
    """Bytes of all pyramid levels before compression."""
    itemsize = np.dtype(plan.dtype).itemsize
    return sum(
        plan.shape[0] * height * width * itemsize
        for height, width in level_sizes(plan.grid.hr_size)
    )


def check_disk(plan: Plan, output: str) -> None:
    """Refuse an output that has no chance to fit: images shrink to a fifth at the best. What lies
    there now makes room.
    """
    if isinstance(place(output), ObjectPath):
        return
    folder = Path(output).resolve().parent
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free + bytes_at(output)
    if free < disk(plan) / 5:
        raise Refused(
            f"the output needs about {disk(plan) / 2**20:,.1f} MiB, and {folder} has"
            f" {free / 2**20:,.1f} MiB free; choose another place"
        )


def outlook(plan: Plan, found: SourceInfo, workers: int) -> dict[str, Any]:
    """What carrying out a plan will take."""
    assert plan.routes is not None
    planes = plane_count(plan.shape[0], plan.colour)
    cost = planned_cost(plan, plan.routes)
    counts = np.bincount(plan.routes.ravel(), minlength=len(plan.tiers))
    dearest = full_cost(plan)
    bare = (
        float(
            (np.array([tier.cost for tier in plan.tiers])[plan.routes.ravel()] * areas(plan)).sum()
        )
        * planes
    )
    return {
        "status": "done",
        "tiles": {tier.label: int(count) for tier, count in zip(plan.tiers, counts, strict=True)},
        "cost": cost,
        "cost_share": cost / dearest,
        "memory_bytes": memory(plan, found, workers),
        "disk_bytes": disk(plan),
        "seconds_estimate": round(2.0 + beside(plan) + cost / (_speed() * workers), 1),
        "tile": plan.tile,
        "halo": plan.halo,
        "halo_overhead": cost / bare - 1,
        "refused": None,
    }


def _speed() -> float:
    """Multiply-adds a second of one worker, measured now with a convolution like the networks':
    half a second at most.
    """
    layer, window = torch.nn.Conv2d(64, 64, 3, padding=1), torch.zeros(1, 64, 128, 128)
    with torch.inference_mode():
        layer(window)
        began = time.perf_counter()
        for _ in range(3):
            layer(window)
    return 3 * 9 * 64 * 64 * 128 * 128 / (time.perf_counter() - began) * 0.5
