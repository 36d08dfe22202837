"""What carrying out a plan takes: memory, disk, time. What does not fit is refused before work."""

import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from tierscale.pipeline.errors import Refused
from tierscale.pipeline.formats.arrays.array import AT_ONCE
from tierscale.pipeline.formats.arrays.ingest import CHUNK
from tierscale.pipeline.geometry.grid import tile_length
from tierscale.pipeline.output.levels import level_sizes
from tierscale.pipeline.output.store import bytes_at
from tierscale.pipeline.plan.options import SMALLEST_TILE
from tierscale.pipeline.plan.plan import Draft, Plan
from tierscale.pipeline.routing.costs import areas, full_cost, planned_cost
from tierscale.pipeline.routing.routes import seconds_beside_networks
from tierscale.pipeline.run.inspect import SourceInfo
from tierscale.pipeline.storage.object_path import ObjectPath
from tierscale.pipeline.storage.paths import place
from tierscale.pipeline.wording import compared, counted, in_bytes

# Measured on Linux with torch 2.13: what a worker process takes before it is given an image, and
# Ray's own processes together.
WORKER_BYTES = 650 << 20
DRIVER_BYTES = 700 << 20
# A tile's row in the table, in the driver.
TILE_BYTES = 1 << 10
# Share of this machine's memory that may be used unless --max-memory says otherwise.
USABLE = 0.9
# What images shrink to at the best when they are compressed.
SMALLEST_SHARE = 1 / 5
# Seconds of a run that do not depend on its image.
START_SECONDS = 2.0


def memory_bytes(draft: Draft, info: SourceInfo, workers: int) -> int:
    """Bytes that all processes together take at most: a sum of bounds.

    None grows with the image but the tile table, and what the decoder of a format takes that can
    only be decoded whole.
    """
    return _least(workers) + _work_bytes(draft, info, workers)


def thread_bytes(draft: Draft, info: SourceInfo, threads: int) -> int:
    """As memory_bytes, of this process alone, whose threads share what libraries take."""
    return WORKER_BYTES + _work_bytes(draft, info, threads)


def _work_bytes(draft: Draft, info: SourceInfo, workers: int) -> int:
    """Bytes that an image takes beside those of idle processes."""
    channels, itemsize = draft.shape[0], np.dtype(draft.dtype).itemsize
    grid = draft.grid
    tall, wide = (side * draft.tile + 2 * draft.halo for side in grid.shard_tiles)
    window = min(tall, grid.size[0]) * min(wide, grid.size[1])
    # A shard is clipped to the image, however large its tiles are.
    height, width = (min(sides) for sides in zip(grid.hr_shard, grid.hr_size, strict=True))
    hr_shard = height * width
    tiers = zip(draft.tiers, draft.batch, strict=True)
    networks = max(tier.memory * batch for tier, batch in tiers) * window
    reading = window * channels * (itemsize + 4) + window * draft.rgb_count * 12
    # Pieces, the stitched shard, and its bytes on the way to the store.
    writing = hr_shard * (channels * 4 * 3 + channels * itemsize * 3)
    tiles = grid.tiles[0] * grid.tiles[1] * TILE_BYTES
    # One worker ingests before any enlarges; from then on all read the copy, as they otherwise read
    # the source.
    ingesting, decoding = 0, info.decode_bytes
    if info.needs_ingest:
        ingesting, decoding = info.decode_bytes, 2 * AT_ONCE * CHUNK**2 * channels * itemsize
    enlarging = workers * (networks + reading + writing + decoding)
    return int(tiles + max(ingesting, enlarging))


def check_memory(draft: Draft, info: SourceInfo, allowed: int | None, workers: int) -> None:
    """Refuse a plan that does not fit, with the numbers and what would fit."""
    limit = usable_memory(allowed)
    needed = memory_bytes(draft, info, workers)
    if needed <= limit:
        return
    advice = f"--max-memory {needed} on a machine that has it"
    parts = (draft.tile // part for part in (2, 4, 8))
    sides = {tile_length(part, draft.scale) for part in parts if part >= SMALLEST_TILE}
    for tile in sorted(sides - {draft.tile}, reverse=True):
        if memory_bytes(replace(draft, tile=tile), info, workers) <= limit:
            advice = f"--tile {tile}, or --max-memory {needed}"
            break
    needs, may = compared(needed, limit)
    raise Refused(
        f"{info.uri}: the plan needs {needs} with {counted(workers, 'worker')}, but only {may} may"
        f" be used; give {advice}"
    )


def check_least(allowed: int | None, workers: int) -> None:
    """Refuse an amount of memory that not even the smallest image fits in, with so many workers."""
    limit, needed = usable_memory(allowed), _least(workers)
    if needed > limit:
        needs, may = compared(needed, limit)
        raise Refused(
            f"any image needs {needs} or more with {counted(workers, 'worker')}, but"
            f" only {may} may be used; raise --max-memory, or lower --workers"
        )


def _least(workers: int) -> int:
    """Bytes of the driver and so many workers before any image."""
    return DRIVER_BYTES + workers * WORKER_BYTES


def usable_memory(allowed: int | None) -> int:
    """Bytes that may be used: as asked, or most of this machine's."""
    return allowed if allowed is not None else int(psutil.virtual_memory().total * USABLE)


def disk_bytes(draft: Draft) -> int:
    """Bytes of all pyramid levels before compression."""
    pixel = draft.shape[0] * np.dtype(draft.dtype).itemsize
    return sum(pixel * height * width for height, width in level_sizes(draft.grid.hr_size))


def check_disk(draft: Draft, output: str) -> None:
    """Refuse an output that has no chance to fit. What lies there now makes room."""
    check_free(output, disk_bytes(draft))


def check_free(output: str, needed: int) -> None:
    """Refuse an output of so many bytes before compression that has no chance to fit."""
    if isinstance(place(output), ObjectPath):
        return
    folder = Path(output).resolve().parent
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free + bytes_at(output)
    if free < needed * SMALLEST_SHARE:
        raise Refused(
            f"the output needs about {in_bytes(needed)}, and {folder} has {in_bytes(free)} free;"
            " choose another place, or free some space"
        )


@dataclass(frozen=True, slots=True)
class Outlook:
    """What carrying out a plan will take.

    cost: multiply-adds. cost_share: of the full tier everywhere. halo_overhead: share of the cost
    that surroundings of tiles take.
    """

    tiles: dict[str, int]
    cost: float
    cost_share: float
    memory_bytes: int
    disk_bytes: int
    seconds_estimate: float
    tile: int
    halo: int
    halo_overhead: float

    def to_json(self) -> dict[str, Any]:
        """What `tierscale plan --json` adds to the summary."""
        return {**{name: getattr(self, name) for name in self.__slots__}, "refused": None}


def outlook(plan: Plan, info: SourceInfo, workers: int, keep_source: bool = False) -> Outlook:
    """What carrying out a plan will take on so many workers.

    keep_source: whether the ingested copy of the source stays beside the output.
    """
    cost = planned_cost(plan, plan.routes)
    costs = np.array([tier.cost for tier in plan.tiers])[plan.routes.ravel()]
    bare = float((costs * areas(plan)).sum()) * plan.rgb_count
    seconds = START_SECONDS + seconds_beside_networks(plan) + cost / (_speed() * workers)
    return Outlook(
        tiles=plan.tile_counts,
        cost=cost,
        cost_share=cost / full_cost(plan),
        memory_bytes=memory_bytes(plan, info, workers),
        disk_bytes=disk_bytes(plan) + (info.copy_bytes if keep_source else 0),
        seconds_estimate=round(seconds, 1),
        tile=plan.tile,
        halo=plan.halo,
        halo_overhead=cost / bare - 1,
    )


def _speed() -> float:
    """Multiply-adds a second of one worker, measured now with a convolution like the networks'.

    It takes half a second at most.
    """
    layer, window = torch.nn.Conv2d(64, 64, 3, padding=1), torch.zeros(1, 64, 128, 128)
    with torch.inference_mode():
        layer(window)
        began = time.perf_counter()
        for _ in range(3):
            layer(window)
    return 3 * 9 * 64 * 64 * 128 * 128 / (time.perf_counter() - began) * 0.5
