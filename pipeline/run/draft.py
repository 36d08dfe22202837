"""The draft of an image: what was asked, what its source is, and what its tiers are."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tierscale.models.contract.kind import Kind
from tierscale.models.kind import load_kind_network
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.formats.registry import open_image
from tierscale.pipeline.formats.source import Source
from tierscale.pipeline.geometry.grid import tile_length
from tierscale.pipeline.plan.begun import completed
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.plan.plan import Draft, Family, Plan
from tierscale.pipeline.plan.source import SourceRef
from tierscale.pipeline.plan.tiers import Tier, default_tiers
from tierscale.pipeline.run.inspect import (
    SourceInfo,
    describe_source,
    region_shape,
)
from tierscale.pipeline.run.tiers import (
    TileScorer,
    effort_notes,
    find_scorer,
    load_tiers,
    named_scout,
    same_tiers,
)
from tierscale.pipeline.storage.sidecar import sidecar

# Windows in one call on a GPU.
GPU_BATCH = 4


@dataclass(frozen=True, slots=True)
class Inspection:
    """Everything of an image that is known without its pixels.

    begun: the stored plan that `draft` takes over what nobody asked for; None: a new one is made.
    """

    draft: Draft
    source: SourceInfo
    scorer: TileScorer
    begun: Plan | None = None


def check_paths(source: str, output: str) -> None:
    """Refuse an output without .zarr, one that is the source or lies in it, and the reverse."""
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
    if sidecar(str(here)) in there.parents:
        raise Refused(
            f"the source {source} lies in {sidecar(output)}, which belongs to the output {output};"
            " choose another output"
        )


def inspect_file(
    source: str,
    options: Options,
    max_memory: int | None,
    device: str,
    begun: Plan | None = None,
) -> Inspection:
    """Open a source and draft its plan. Refused: what cannot work.

    max_memory: bytes that decoding may take, or None. device: kind of device of the workers. begun:
    see inspect_image().
    """
    with open_image(source, options.selection, max_memory) as image:
        return inspect_image(image, options, device, begun)


def inspect_image(
    image: Source, options: Options, device: str, begun: Plan | None = None
) -> Inspection:
    """Draft the plan of an opened image. Refused: what cannot work.

    begun: the stored plan of the output; what is not written in the options is taken from it.
    """
    _check_device(options, device)
    if begun is not None:
        options = completed(options, begun)
    info = describe_source(image, options)
    tiers, scorer = _networks(options, begun)
    family = _family(image, options, begun)
    tile, nodata, device = _as_begun(options, begun, info.nodata, device)
    statistics = "exact" if options.exact_statistics else "sample"
    draft = Draft(
        source=SourceRef(
            uri=info.uri,
            identity=dict(image.identity),
            selection=options.selection,
            region=options.region,
            nodata=nodata,
            value_range=options.value_range,
        ),
        shape=region_shape(image, options.region),
        dtype=image.dtype.name,
        colour=image.colour,
        alpha=image.alpha,
        scale=options.scale,
        tile=tile,
        blend=options.blend,
        tiers=tiers,
        policy=options.policy,
        statistics=statistics if any(tier.auto for tier in tiers) else None,
        device=device,
        batch=_batches(tiers, device),
        scoring=scorer.scoring,
        scout=scorer.digest,
        family=family,
        kind=None if begun is None else begun.kind,
    )
    notes = (*info.notes, *effort_notes(tiers, options.scale), *_notes(draft, options))
    return Inspection(draft, replace(info, notes=notes), scorer, begun)


def _as_begun(
    options: Options, begun: Plan | None, nodata: float | None, device: str
) -> tuple[int, float | None, str]:
    """Tile, value of missing pixels and device: of the stored plan, where they are not written."""
    tile = tile_length(options.tile, options.scale)
    if begun is None:
        return tile, nodata, device
    return (
        tile if "tile" in options.written else begun.tile,
        nodata if "nodata" in options.written else begun.source.nodata,
        begun.device if options.device == "auto" else device,
    )


def _check_device(options: Options, device: str) -> None:
    """Refuse workers of another kind of device than was asked for."""
    if options.device not in ("auto", device):
        raise Refused(
            f"the workers run on {device}, and {options.device} was asked for; use --device"
            f" {device}, or other workers"
        )


def _family(image: Source, options: Options, begun: Plan | None) -> Family | None:
    """The family of the default tiers: as asked for, as begun, or "auto" where the image decides.

    By itself it decides only where it may be a photo or a scan of one: 8 bits, grey or colours,
    without a place on the ground or a physical size of pixels.
    """
    if "tiers" in options.written:
        return None
    if options.family == "auto" and begun is not None:
        return begun.family
    if options.family != "auto":
        return options.family
    metadata = image.metadata
    photo = (
        image.dtype == np.uint8
        and image.colour in ("grey", "rgb")
        and metadata.geo is None
        and metadata.pixel_size is None
        and options.value_range is None
        and options.nodata is None
        and metadata.nodata is None
    )
    return "auto" if photo and load_kind_network(options.scale) is not None else "clean"


def in_family(
    inspection: Inspection, options: Options, family: Family, kind: Kind | None
) -> Inspection:
    """An inspection whose tiers are the default ones of a family. Refused: the policy cannot."""
    tiers = load_tiers(default_tiers(options.scale, family), options.scale)
    scorer = find_scorer(tiers, options)
    draft = replace(
        inspection.draft,
        tiers=tiers,
        batch=_batches(tiers, inspection.draft.device),
        scoring=scorer.scoring,
        scout=scorer.digest,
        family=family,
        kind=kind,
    )
    return replace(inspection, draft=draft, scorer=scorer)


def _batches(tiers: Sequence[Tier], device: str) -> tuple[int, ...]:
    """Windows in one call, for each tier."""
    return tuple(1 if device == "cpu" else GPU_BATCH for _ in tiers)


def _networks(options: Options, begun: Plan | None) -> tuple[tuple[Tier, ...], TileScorer]:
    """The tiers that are asked for, with the weights of the stored plan where there is one."""
    if begun is None or not same_tiers(begun.tiers, options):
        tiers = load_tiers(options.tier_labels, options.scale)
        return tiers, find_scorer(tiers, options)
    # The tiles have their tiers: no scout is looked for, unless a person names one.
    return begun.tiers, TileScorer(begun.scoring, named_scout(begun.tiers, options))


def _notes(draft: Draft, options: Options) -> list[str]:
    """What is to be said of a draft's tiers and of how its tiles are scored."""
    notes = []
    if options.tiers is None and len(draft.tiers) == 1:
        notes.append(
            f"no network was made for scale {draft.scale}: {draft.tiers[0].label} makes every tile"
            " (tierscale models lists scales)"
        )
    if draft.scoring == "detail":
        labels = ", ".join(tier.label for tier in draft.tiers)
        notes.append(
            f"no scout was fitted for {labels}: tiles are ranked by plain detail; tierscale scout"
            f" fit --scale {draft.scale} makes one"
        )
    return notes
