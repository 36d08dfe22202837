"""Before any pixel is enlarged: check what was asked, look at the source, load what the tiers say of themselves, choose routes."""

import itertools
import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

import models
from pipeline import routing
from pipeline.automatic import Automatic
from pipeline.colour import Levels, holds, plane_count, spanning
from pipeline.difficulty import blocks
from pipeline.errors import Damaged, Refused
from pipeline.facts import PhotoFacts
from pipeline.grid import Span, tile_length
from pipeline.images import Selection, Source, open_image
from pipeline.ingest import CHUNK
from pipeline.plan import ENDLESS_REACH, Options, Plan, Tier, cost_of_routes
from pipeline.store import bytes_at, level_sizes, sibling
from pipeline.zarrs import AT_ONCE

# Measured on Linux with torch 2.13: what a worker process takes before it is given an image, and Ray's own processes together.
WORKER_BYTES = 650 << 20
DRIVER_BYTES = 700 << 20
# A tile's row in the table, in the driver.
TILE_BYTES = 1 << 10


@dataclass(frozen=True, slots=True)
class Found:
    """What was seen of a source without reading its pixels. facts: of the source; hr_facts: of the enlarged image.

    decode_bytes: most memory that reading or ingesting takes beside the window that is asked for.
    """

    uri: str
    selection: Selection
    facts: PhotoFacts
    hr_facts: PhotoFacts
    needs_ingest: bool
    decode_bytes: int
    nodata: float | None
    notes: tuple[str, ...]


def check_paths(source: str, output: str) -> None:
    """Refuse an output without .zarr, one that is the source or lies in it, and one in a folder that cannot be made."""
    if not output.rstrip("/").endswith(".zarr"):
        raise Refused(f"the output {output} does not end in .zarr (.tif and .png are exported from one)")
    here, there = Path(output).resolve(), Path(source).resolve()
    if here == there or there in here.parents:
        raise Refused(f"the output {output} lies inside the source {source}; choose a place outside it")
    if here in there.parents:
        raise Refused(f"the source {source} lies inside the output {output}; choose another output")
    if sibling(str(here)) in there.parents:
        raise Refused(f"the source {source} lies in {sibling(output)}, which belongs to the output {output}; choose another output")


def draft(source: str, options: Options, max_memory: int | None, device: str, workers: int) -> tuple[Plan, Found]:
    """Everything of a file's plan but the routes, and what was seen of the source. Refused: what cannot work.

    device: kind of device of the workers that will carry it out, "cpu" or "cuda".
    """
    with open_image(source, Selection(options.series, options.level, options.z, options.t), max_memory) as image:
        plan, found = draft_of(image, options, device)
    check_memory(plan, found, max_memory, workers)
    return plan, found


def draft_of(image: Source, options: Options, device: str) -> tuple[Plan, Found]:
    """As draft(), of an opened image and without a look at memory."""
    if options.device not in ("auto", device):
        raise Refused(f"the workers run on {device}, and {options.device} was asked for; use --device {device}, or other workers")
    tiers = load_tiers(options.tier_labels, options.scale)
    found = _found(image, options)
    plan = Plan(
        source={
            "uri": found.uri,
            "identity": dict(image.identity),
            "selection": {"series": options.series, "level": options.level, "z": options.z, "t": options.t},
            "region": list(options.region) if options.region else None,
            "nodata": None if found.nodata is None else str(found.nodata),
            "range": list(options.value_range) if options.value_range else None,
        },
        shape=_region_shape(image, options.region),
        dtype=image.dtype.name,
        colour=image.colour,
        alpha=image.alpha,
        scale=options.scale,
        tile=tile_length(options.tile, options.scale),
        blend=options.blend,
        tiers=tiers,
        policy={
            "name": options.policy,
            "budget": options.budget,
            "threshold": options.threshold,
            "statistics": ("exact" if options.exact_statistics else "sample") if any(tier.auto for tier in tiers) else None,
        },
        device=device,
        threads=1,
        batch=tuple(1 if device == "cpu" else 4 for _ in tiers),
        scores=_scores(tiers, options),
    )
    notes = (*found.notes, *below_floor(tiers))
    if plan.scores == "detail":
        notes = (*notes, f"no scout was fitted for {', '.join(options.tier_labels)}: tiles are ranked by plain detail")
    return plan, replace(found, notes=notes)


def _scores(tiers: Sequence[Tier], options: Options) -> str:
    """How tiles are scored: "scout" where one was fitted for these tiers, plain "detail" otherwise, "none" where no policy asks."""
    if options.policy in ("dearest", "cheapest") or len(tiers) == 1:
        return "none"
    labels = [tier.label for tier in tiers]
    if models.load_scout(labels, options.scale) is not None:
        return "scout"
    if options.policy == "threshold":
        raise Refused(
            f"policy threshold compares predicted errors, and no scout knows {', '.join(labels)}; use --budget or --policy adaptive"
        )
    return "detail"


def _found(image: Source, options: Options) -> Found:
    facts = image.facts
    nodata = options.nodata if options.nodata is not None else facts.nodata
    notes = tuple(image.notes)
    if nodata is not None and not holds(nodata, image.dtype):
        notes = (*notes, f"the no-data value {nodata:g} cannot occur in {image.dtype.name} pixels and marks none")
        nodata = None
    hr_facts = facts if options.region is None else facts.cropped(options.region[0], options.region[1])
    return Found(
        uri=os.path.abspath(image.uri) if "://" not in image.uri else image.uri,
        selection=Selection(options.series, options.level, options.z, options.t),
        facts=facts,
        hr_facts=hr_facts.scaled(options.scale),
        needs_ingest=not image.random_access,
        decode_bytes=image.decode_bytes,
        nodata=nodata,
        notes=notes,
    )


def reopen(plan: Plan) -> Found:
    """The source of a stored plan. Refused: it is not the same image any more."""
    selection = Selection(**plan.source["selection"])
    with open_image(plan.source["uri"], selection) as image:
        if dict(image.identity) != plan.source["identity"]:
            raise Refused(
                f"{plan.source['uri']} is not the image that was planned (its content changed); restore it, or begin anew with --overwrite"
            )
        return Found(image.uri, selection, image.facts, image.facts, not image.random_access, image.decode_bytes, None, ())


def check_unchanged(plan: Plan, found: Found) -> None:
    """Damaged: the source is not what it was when the run began, so that shards may be of two images."""
    with open_image(found.uri, found.selection) as image:
        if dict(image.identity) != plan.source["identity"]:
            raise Damaged(f"{found.uri} was changed while it was enlarged; give the command again with --overwrite")


def _region_shape(image: Source, region: tuple[int, int, int, int] | None) -> tuple[int, int, int]:
    channels, height, width = image.shape
    if height < 1 or width < 1 or channels < 1:
        raise Refused(f"{image.uri} has no pixels ({channels} channels of {height}x{width})")
    if region is None:
        return image.shape
    x, y, wide, tall = region
    if wide < 1 or tall < 1 or x < 0 or y < 0 or x + wide > width or y + tall > height:
        raise Refused(f"the region {x},{y},{wide},{tall} is not inside the image of {width}x{height} pixels")
    return channels, tall, wide


def load_tiers(labels: Sequence[str], scale: Fraction) -> tuple[Tier, ...]:
    """What a plan remembers of each tier. Refused: none, unknown, twice, a scale not offered, or not in order of cost."""
    if not labels:
        raise Refused("no tiers were named; write for example --tiers bicubic,fsrcnn-x4")
    if len(set(labels)) != len(labels):
        raise Refused(f"the tiers {', '.join(labels)} name one twice")
    tiers = tuple(_tier(label, scale) for label in labels)
    for cheap, dear in itertools.pairwise(tiers):
        if cheap.cost >= dear.cost:
            costs = f"{cheap.label} costs {cheap.cost:.0f} multiply-adds a pixel and {dear.label} {dear.cost:.0f}"
            raise Refused(f"tiers go from cheap to dear, but {costs}; change their order")
    return tiers


def _tier(label: str, scale: Fraction) -> Tier:
    match = re.fullmatch(r"([^@]+)(?:@(auto|\d+(?:\.\d*)?|\.\d+))?", label.strip())
    auto = match is not None and match[2] == "auto"
    if not match or (not auto and float(match[2] or 1) > 1):
        raise Refused(f"a tier {label!r} is not written NAME, NAME@EFFORT with an effort of 0 to 1, or NAME@auto")
    name, effort = match[1], 1.0 if auto else float(match[2] or 1)
    try:
        upscaler = models.load(name)
    except (ValueError, FileNotFoundError) as error:
        raise Refused(str(error)) from error
    if upscaler.scales is not None and scale not in upscaler.scales:
        offered = ", ".join(f"x{s}" for s in sorted(upscaler.scales))
        raise Refused(f"{name} was not made for scale {scale}, only for {offered}; choose other tiers (tierscale models lists them)")
    if auto and not isinstance(upscaler, Automatic):
        raise Refused(f"{name} does not decide by statistics of the image; write {name} without @auto")
    if effort < 1 and upscaler.knob is None:
        raise Refused(f"{name} has no knob: it runs at full effort only; write {name} without @{match[2]}")
    if effort < 1 and upscaler.efforts is None:
        raise Refused(f"what {name} costs at an effort of {match[2]} was not measured; run tierscale models calibrate {name} --hr DIR")
    reach = upscaler.reach if upscaler.reach is not None else ENDLESS_REACH
    return Tier(name, models.digest(name), effort, upscaler.cost(scale, effort), reach, upscaler.memory(scale), auto)


def below_floor(tiers: Sequence[Tier]) -> tuple[str, ...]:
    """A sentence for each tier that is asked for less than the least it can run at."""
    notes = []
    for tier in tiers:
        efforts = models.load(tier.name).efforts if tier.effort < 1 else None
        if efforts is not None and tier.effort < efforts.floor:
            notes.append(f"{tier.label} runs at {efforts.floor:.2f} of its full computation, the least that {tier.name} can")
    return tuple(notes)


def levels(
    plan: Plan, asked: tuple[float, float] | None, nodata: float | None, measure: Callable[[list[Span]], Sequence[tuple[float, float]]]
) -> Levels:
    """Values that become 0 and 1: as asked, by the type for uint8, or as measured over the whole image.

    measure: smallest and largest value of blocks of rows. It refuses NaN that nothing accounts for, so floats are measured in any case.
    """
    dtype = np.dtype(plan.dtype)
    if asked is None and dtype == np.uint8:
        return Levels(0.0, 255.0, 0.0, 255.0, nodata)
    found = measure(blocks(plan.shape[1], 512)) if asked is None or dtype.kind == "f" else []
    return spanning(found, nodata) if asked is None else Levels.fixed(*asked, dtype, nodata)


def route(plan: Plan, scores: np.ndarray) -> np.ndarray:
    """One tier for every tile, (rows, columns), by the plan's policy. scores: (tiles, tiers)."""
    choice = routing.Choice(
        costs=tuple(tier.cost for tier in plan.tiers),
        cost_of=cost_of_routes(plan.grid, plan.tiers, plan.blend, plane_count(plan.shape[0], plan.colour)),
        budget=plan.policy["budget"],
        threshold=plan.policy["threshold"],
    )
    try:
        routing.check(scores, plan.grid.tiles[1])
        routes = routing.POLICIES[plan.policy["name"]](scores.astype(np.float64), choice)
        # Scattered dear tiles pay their halos one by one: where that costs more than the dearest tier everywhere, take that.
        dearest = routing.dearest(scores, choice)
        if choice.cost_of(routes) > choice.cost_of(dearest):
            routes = dearest
        return routes.reshape(plan.grid.tiles)
    except ValueError as error:
        raise Refused(str(error)) from error


def planned_cost(plan: Plan, routes: np.ndarray) -> float:
    """Multiply-adds that routes will take, halos included."""
    return float(cost_of_routes(plan.grid, plan.tiers, plan.blend, plane_count(plan.shape[0], plan.colour))(routes.ravel()))


def dearest_cost(plan: Plan) -> float:
    """Multiply-adds of the dearest tier everywhere, halos included."""
    return planned_cost(plan, np.full(plan.grid.tiles, len(plan.tiers) - 1))


def memory(plan: Plan, found: Found, workers: int) -> int:
    """Bytes that all processes together take at most: a sum of bounds.

    None grows with the image but the tile table, and what the decoder of a format takes that can only be decoded whole.
    """
    channels = plan.shape[0]
    planes = plane_count(channels, plan.colour)
    itemsize = np.dtype(plan.dtype).itemsize
    tall, wide = (side * plan.tile + 2 * plan.halo for side in plan.grid.shard_tiles)
    window = min(tall, plan.grid.size[0]) * min(wide, plan.grid.size[1])
    hr_shard = plan.grid.hr_shard[0] * plan.grid.hr_shard[1]
    networks = max(tier.memory * batch for tier, batch in zip(plan.tiers, plan.batch, strict=True)) * window
    reading = window * channels * (itemsize + 4) + window * planes * 12
    # Pieces, the stitched shard, and its bytes on the way to the store.
    writing = hr_shard * (channels * 4 * 3 + channels * itemsize * 3)
    tiles = plan.grid.tiles[0] * plan.grid.tiles[1] * TILE_BYTES
    # One worker ingests before any enlarges; from then on all read the copy, as they otherwise read the source.
    ingesting = found.decode_bytes if found.needs_ingest else 0
    decoding = 2 * AT_ONCE * CHUNK**2 * channels * itemsize if found.needs_ingest else found.decode_bytes
    enlarging = workers * (networks + reading + writing + decoding)
    return int(DRIVER_BYTES + tiles + workers * WORKER_BYTES + max(ingesting, enlarging))


def check_memory(plan: Plan, found: Found, allowed: int | None, workers: int) -> None:
    """Refuse a plan that does not fit, with the numbers and what would fit."""
    limit = allowed if allowed is not None else int(psutil.virtual_memory().total * 0.9)
    needed = memory(plan, found, workers)
    if needed <= limit:
        return
    advice = f"--max-memory {needed} on a machine that has it"
    sides = {tile_length(plan.tile // part, plan.scale) for part in (2, 4, 8) if plan.tile // part >= 8}
    for tile in sorted(sides - {plan.tile}, reverse=True):
        if memory(replace(plan, tile=tile), found, workers) <= limit:
            advice = f"--tile {tile}, or --max-memory {needed}"
            break
    raise Refused(
        f"{found.uri}: the plan needs {needed / 2**30:.2f} GiB with {workers} workers, but {limit / 2**30:.2f} GiB may be used; "
        f"what would fit: {advice}"
    )


def disk(plan: Plan) -> int:
    """Bytes of all pyramid levels before compression."""
    itemsize = np.dtype(plan.dtype).itemsize
    return sum(plan.shape[0] * height * width * itemsize for height, width in level_sizes(plan.grid.hr_size))


def check_disk(plan: Plan, output: str) -> None:
    """Refuse an output that has no chance to fit: images shrink to a fifth at the best. What lies there now makes room."""
    folder = Path(output).resolve().parent
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free + bytes_at(output)
    if free < disk(plan) / 5:
        raise Refused(
            f"the output needs about {disk(plan) / 2**30:.2f} GiB, and {folder} has {free / 2**30:.2f} GiB free; choose another place"
        )


def outlook(plan: Plan, found: Found, workers: int) -> dict[str, Any]:
    """What carrying out a plan will take."""
    assert plan.routes is not None
    planes = plane_count(plan.shape[0], plan.colour)
    cost = planned_cost(plan, plan.routes)
    counts = np.bincount(plan.routes.ravel(), minlength=len(plan.tiers))
    area = plan.grid.size[0] * plan.grid.size[1] * planes
    dearest = dearest_cost(plan)
    bare = plan.tiers[-1].cost * area
    return {
        "status": "done",
        "tiles": {tier.label: int(count) for tier, count in zip(plan.tiers, counts, strict=True)},
        "cost": cost,
        "cost_share": cost / dearest,
        "memory_bytes": memory(plan, found, workers),
        "disk_bytes": disk(plan),
        "seconds_estimate": round(2.0 + cost / (_speed() * workers) + area * float(plan.scale) ** 2 * 6e-8, 1),
        "tile": plan.tile,
        "halo": plan.halo,
        "halo_overhead": dearest / bare - 1,
        "refused": None,
    }


def _speed() -> float:
    """Multiply-adds a second of one worker, measured now with a convolution like the networks': half a second at most."""
    import time

    layer, window = torch.nn.Conv2d(64, 64, 3, padding=1), torch.zeros(1, 64, 128, 128)
    with torch.inference_mode():
        layer(window)
        began = time.perf_counter()
        for _ in range(3):
            layer(window)
    return 3 * 9 * 64 * 64 * 128 * 128 / (time.perf_counter() - began) * 0.5
