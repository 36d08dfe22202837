"""Before any pixel is enlarged: check what was asked, look at the source, load what the tiers say
of themselves, choose routes.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from tierscale.models import registry as models
from tierscale.models.scout import Scout
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.formats.registry import Selection, Source, open_image
from tierscale.pipeline.geometry.grid import Span, tile_length
from tierscale.pipeline.inference.difficulty import blocks
from tierscale.pipeline.inference.normalise import ValueRange, spanning
from tierscale.pipeline.inference.statistics import Automatic
from tierscale.pipeline.output.store import sibling
from tierscale.pipeline.plan.plan import ENDLESS_REACH, UNSCORED, Options, Plan, Tier
from tierscale.pipeline.run.inspect import SourceInfo, describe_source, region_shape
from tierscale.pipeline.run.resources import check_memory
from tierscale.pipeline.storage.path_policy import check_secrets


def check_paths(source: str, output: str) -> None:
    """Refuse an output without .zarr, one that is the source or lies in it, and one in a folder
    that cannot be made.
    """
    if not output.rstrip("/").endswith(".zarr"):
        raise Refused(
            f"the output {output} does not end in .zarr (.tif and .png are exported from one)"
        )
    here, there = Path(output).resolve(), Path(source).resolve()
    if here == there or there in here.parents:
        raise Refused(
            f"the output {output} lies inside the source {source}; choose a place outside it"
        )
    if here in there.parents:
        raise Refused(f"the source {source} lies inside the output {output}; choose another output")
    if sibling(str(here)) in there.parents:
        raise Refused(
            f"the source {source} lies in {sibling(output)}, which belongs to the output {output};"
            " choose another output"
        )


def check_options(options: Options) -> None:
    """Refuse what cannot work whatever the image is: tiers, and a scout that is missing or not
    theirs.
    """
    _scores(load_tiers(options.tier_labels, options.scale), options)


def draft(
    source: str, options: Options, max_memory: int | None, device: str, workers: int
) -> tuple[Plan, SourceInfo]:
    """Everything of a file's plan but the routes, and what was seen of the source. Refused: what
    cannot work.

    device: kind of device of the workers that will carry it out, "cpu" or "cuda".
    """
    with open_image(
        source, Selection(options.series, options.level, options.z, options.t), max_memory
    ) as image:
        plan, found = draft_of(image, options, device)
    check_memory(plan, found, max_memory, workers)
    return plan, found


def draft_of(image: Source, options: Options, device: str) -> tuple[Plan, SourceInfo]:
    """As draft(), of an opened image and without a look at memory."""
    if options.device not in ("auto", device):
        raise Refused(
            f"the workers run on {device}, and {options.device} was asked for; use --device"
            f" {device}, or other workers"
        )
    tiers = load_tiers(options.tier_labels, options.scale)
    scores, scout = _scores(tiers, options)
    found = describe_source(image, options)
    plan = Plan(
        source={
            "uri": found.uri,
            "identity": dict(image.identity),
            "selection": {
                "series": options.series,
                "level": options.level,
                "z": options.z,
                "t": options.t,
            },
            "region": list(options.region) if options.region else None,
            "nodata": None if found.nodata is None else str(found.nodata),
            "range": list(options.value_range) if options.value_range else None,
        },
        shape=region_shape(image, options.region),
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
            "pooled": options.pooled,
            "lose": options.lose,
            "deadline": options.deadline,
            "scout": None if scout is None else scout.weights,
            "statistics": (
                ("exact" if options.exact_statistics else "sample")
                if any(tier.auto for tier in tiers)
                else None
            ),
        },
        device=device,
        threads=1,
        batch=tuple(1 if device == "cpu" else 4 for _ in tiers),
        scores=scores,
        scout=scout,
    )
    notes = (*found.notes, *effort_notes(tiers, options.scale))
    if options.tiers is None and len(tiers) == 1:
        notes = (
            *notes,
            (
                f"no network was made for scale {options.scale}: {tiers[0].label} makes every tile"
                " (tierscale models lists scales)"
            ),
        )
    if plan.scores == "detail":
        labels = ", ".join(options.tier_labels)
        notes = (
            *notes,
            (
                f"no scout was fitted for {labels}: tiles are ranked by plain detail; tierscale"
                f" scout fit --scale {options.scale} makes one"
            ),
        )
    return plan, replace(found, notes=notes)


def _scores(tiers: Sequence[Tier], options: Options) -> tuple[str, Scout | None]:
    """How tiles are scored: "scout" where one was fitted for these tiers, plain "detail" otherwise,
    "none" where no policy asks.
    """
    labels = [tier.label for tier in tiers]
    check_secrets(options.scout or "")
    try:
        given = (
            None
            if options.scout is None
            else models.open_scout(Path(options.scout), labels, options.scale)
        )
    except ValueError as error:
        raise Refused(str(error)) from error
    if options.policy in UNSCORED or len(tiers) == 1:
        if given is not None:
            raise Refused(
                f"policy {options.policy} scores no tiles, so the scout {options.scout} would be"
                " ignored; leave it out"
            )
        return "none", None
    scout = given or models.load_scout(labels, options.scale)
    if scout is None and options.policy in ("threshold", "quality"):
        raise Refused(
            f"policy {options.policy} compares predicted errors, and no scout knows"
            f" {', '.join(labels)}; use --budget or --policy adaptive, or run tierscale scout fit"
            f" --scale {options.scale}"
        )
    return "detail" if scout is None else "scout", scout


def load_tiers(labels: Sequence[str], scale: Fraction) -> tuple[Tier, ...]:
    """What a plan remembers of each tier. Refused: none, unknown, twice, a scale not offered, or
    not in order of cost.
    """
    check_secrets(",".join(labels))
    if not labels:
        raise Refused("no tiers were named; write for example --tiers bicubic,fsrcnn-x4")
    if len(set(labels)) != len(labels):
        raise Refused(f"the tiers {', '.join(labels)} name one twice")
    tiers = tuple(_tier(label, scale) for label in labels)
    for cheap, dear in itertools.pairwise(tiers):
        if cheap.cost >= dear.cost:
            costs = (
                f"{cheap.label} costs {cheap.cost:.0f} multiply-adds a pixel and {dear.label}"
                f" {dear.cost:.0f}"
            )
            raise Refused(f"tiers go from cheap to dear, but {costs}; change their order")
    return tiers


def _tier(label: str, scale: Fraction) -> Tier:
    name, asked = models.parse_tier(label)
    auto = asked == "auto"
    effort = 1.0 if auto or not asked else float(asked)
    if not name or ("@" in name and not name.startswith("file:")) or effort > 1:
        raise Refused(
            f"a tier {label!r} is not written NAME, NAME@EFFORT with an effort of 0 to 1, or"
            " NAME@auto"
        )
    try:
        upscaler = models.load(name)
    except (ValueError, FileNotFoundError) as error:
        raise Refused(str(error)) from error
    if upscaler.scales is not None and scale not in upscaler.scales:
        offered = ", ".join(f"x{s}" for s in sorted(upscaler.scales))
        raise Refused(
            f"{name} was not made for scale {scale}, only for {offered}; choose other tiers"
            " (tierscale models lists them)"
        )
    if auto and not isinstance(upscaler, Automatic):
        raise Refused(
            f"{name} does not decide by statistics of the image; write {name} without @auto"
        )
    if effort < 1 and upscaler.control is None:
        raise Refused(
            f"{name} has no control: it runs at full effort only; write {name} without @{asked}"
        )
    if effort < 1 and upscaler.efforts is None:
        raise Refused(
            f"what {name} costs at an effort of {asked} was not measured; run tierscale models"
            f" calibrate {name} --hr DIR"
        )
    reach = upscaler.reach if upscaler.reach is not None else ENDLESS_REACH
    return Tier(
        name,
        models.digest(name),
        effort,
        upscaler.cost(scale, effort),
        reach,
        upscaler.memory(scale),
        auto,
    )


def effort_notes(tiers: Sequence[Tier], scale: Fraction) -> tuple[str, ...]:
    """A sentence for each tier that is asked for less than the least it can run at, and for each
    whose shares are of another scale.
    """
    notes = []
    for tier in tiers:
        efforts = models.load(tier.name).efforts if tier.effort < 1 else None
        if efforts is None:
            continue
        if tier.effort < efforts.floor:
            notes.append(
                f"{tier.label} runs at {efforts.floor:.2f} of its full computation, the least that"
                f" {tier.name} can"
            )
        if efforts.measured.get("scale", str(scale)) != str(scale):
            notes.append(
                f"what {tier.label} costs was measured at scale {efforts.measured['scale']}; at"
                f" {scale} it may cost more or less"
            )
    return tuple(notes)


def levels(
    plan: Plan,
    asked: tuple[float, float] | None,
    nodata: float | None,
    measure: Callable[[list[Span]], Sequence[tuple[float, float]]],
) -> ValueRange:
    """Values that become 0 and 1: as asked, by the type for uint8, or as measured over the whole
    image.

    measure: smallest and largest value of blocks of rows. It refuses NaN that nothing accounts for,
    so floats are measured in any case.
    """
    dtype = np.dtype(plan.dtype)
    if asked is None and dtype == np.uint8:
        return ValueRange(0.0, 255.0, 0.0, 255.0, nodata)
    found = measure(blocks(plan.shape[1], 512)) if asked is None or dtype.kind == "f" else []
    return spanning(found, nodata) if asked is None else ValueRange.fixed(*asked, dtype, nodata)
