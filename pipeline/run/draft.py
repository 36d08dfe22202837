"""The draft of an image: what was asked, what its source is, and what its tiers are."""

from dataclasses import dataclass, replace
from pathlib import Path

from tierscale.pipeline.errors import Refused
from tierscale.pipeline.formats.registry import open_image
from tierscale.pipeline.formats.source import Source
from tierscale.pipeline.geometry.grid import tile_length
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.plan.plan import Draft
from tierscale.pipeline.plan.source import SourceRef
from tierscale.pipeline.run.inspect import (
    SourceInfo,
    describe_source,
    region_shape,
)
from tierscale.pipeline.run.tiers import TileScorer, effort_notes, find_scorer, load_tiers
from tierscale.pipeline.storage.sidecar import sidecar

# Windows in one call on a GPU.
GPU_BATCH = 4


@dataclass(frozen=True, slots=True)
class Inspection:
    """Everything of an image that is known without its pixels."""

    draft: Draft
    source: SourceInfo
    scorer: TileScorer


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


def inspect_file(source: str, options: Options, max_memory: int | None, device: str) -> Inspection:
    """Open a source and draft its plan. Refused: what cannot work.

    max_memory: bytes that decoding may take, or None. device: kind of device of the workers.
    """
    with open_image(source, options.selection, max_memory) as image:
        return inspect_image(image, options, device)


def inspect_image(image: Source, options: Options, device: str) -> Inspection:
    """Draft the plan of an opened image. Refused: what cannot work."""
    if options.device not in ("auto", device):
        raise Refused(
            f"the workers run on {device}, and {options.device} was asked for; use --device"
            f" {device}, or other workers"
        )
    tiers = load_tiers(options.tier_labels, options.scale)
    scorer = find_scorer(tiers, options)
    info = describe_source(image, options)
    statistics = "exact" if options.exact_statistics else "sample"
    draft = Draft(
        source=SourceRef(
            uri=info.uri,
            identity=dict(image.identity),
            selection=options.selection,
            region=options.region,
            nodata=info.nodata,
            value_range=options.value_range,
        ),
        shape=region_shape(image, options.region),
        dtype=image.dtype.name,
        colour=image.colour,
        alpha=image.alpha,
        scale=options.scale,
        tile=tile_length(options.tile, options.scale),
        blend=options.blend,
        tiers=tiers,
        policy=options.policy,
        statistics=statistics if any(tier.auto for tier in tiers) else None,
        device=device,
        batch=tuple(1 if device == "cpu" else GPU_BATCH for _ in tiers),
        scoring=scorer.scoring,
        scout=scorer.digest,
    )
    notes = (*info.notes, *effort_notes(tiers, options.scale), *_notes(draft, options))
    return Inspection(draft, replace(info, notes=notes), scorer)


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
