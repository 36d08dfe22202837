"""The draft of an image: what was asked, what its source is, and what its tiers are."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from tierscale.models.contract.kind import Kind
from tierscale.models.kind import load_kind_network
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.formats.registry import open_image
from tierscale.pipeline.formats.source import Source
from tierscale.pipeline.geometry.grid import Grid, tile_length
from tierscale.pipeline.plan.begun import completed
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.plan.plan import Draft, Family, Plan
from tierscale.pipeline.plan.policies import Deadline, Full, MaxLoss, Policy
from tierscale.pipeline.plan.precision import Hardware
from tierscale.pipeline.plan.source import SourceRef
from tierscale.pipeline.plan.tiers import Tier
from tierscale.pipeline.run.inspect import (
    SourceInfo,
    describe_source,
    region_shape,
)
from tierscale.pipeline.run.scoring.scorer import TileScorer, find_scorer, is_measured
from tierscale.pipeline.run.tiers import (
    effort_notes,
    float32_notes,
    load_tiers,
    precision_of,
    reads_statistics,
    same_tiers,
)
from tierscale.pipeline.storage.sidecar import sidecar

# Windows in one call on a GPU.
GPU_BATCH = 4
# On fewer tiles than these, policies that weigh cost against loss take the full tier everywhere.
FEW_TILES = 12


@dataclass(frozen=True, slots=True)
class Inspection:
    """Everything of an image that is known without its pixels.

    hardware: of the workers. begun: the stored plan that `draft` takes over what nobody asked for;
    None: a new one is made. choices: what is to be said of the policy and of the scores, once the
    family is chosen.
    """

    draft: Draft
    source: SourceInfo
    scorer: TileScorer
    hardware: Hardware
    begun: Plan | None = None
    choices: tuple[str, ...] = ()


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
    hardware: Hardware,
    begun: Plan | None = None,
) -> Inspection:
    """Open a source and draft its plan. Refused: what cannot work.

    max_memory: bytes that decoding may take, or None. hardware: of the workers. begun: see
    inspect_image().
    """
    with open_image(source, options.selection, max_memory) as image:
        return inspect_image(image, options, hardware, begun)


def inspect_image(
    image: Source, options: Options, hardware: Hardware, begun: Plan | None = None
) -> Inspection:
    """Draft the plan of an opened image. Refused: what cannot work.

    begun: the stored plan of the output; what is not written in the options is taken from it.
    """
    _check_device(options, hardware.device)
    if begun is not None:
        options = completed(options, begun)
    info, tiers = describe_source(image, options), _networks(options, begun)
    tile, nodata, device = _as_begun(options, begun, info.nodata, hardware.device)
    shape = region_shape(image, options.region)
    policy, said = _policy(options, tiers, Grid(shape[1:], options.scale, tile), begun)
    scorer = _scorer(tiers, options.scale, policy, begun)
    draft = Draft(
        source=SourceRef(
            uri=info.uri,
            identity=dict(image.identity),
            selection=options.selection,
            region=options.region,
            nodata=nodata,
            value_range=options.value_range,
        ),
        shape=shape,
        dtype=image.dtype.name,
        colour=image.colour,
        alpha=image.alpha,
        scale=options.scale,
        tile=tile,
        blend=options.blend,
        tiers=tiers,
        policy=policy,
        statistics=_statistics(options, tiers, begun),
        device=device,
        batch=_batches(tiers, device),
        scoring=scorer.scoring,
        scorer=scorer.network,
        family=_family(image, options, begun),
        kind=None if begun is None else begun.kind,
        precision=precision_of(options, tiers, hardware, begun),
    )
    said += [*_unmeasured(draft, scorer), *float32_notes(draft)] if begun is None else []
    info = replace(info, notes=(*info.notes, *_notes(draft, options, info)))
    return Inspection(draft, info, scorer, hardware, begun, tuple(said))


def _statistics(options: Options, tiers: Sequence[Tier], begun: Plan | None) -> str | None:
    """How tiers that decide by statistics of the image get them, if there is one."""
    # The weights of tiers that were planned earlier may be missing.
    if begun is not None and begun.tiers == tuple(tiers):
        needed = begun.statistics is not None
    else:
        needed = reads_statistics(tiers)
    if not needed:
        return None
    return "exact" if options.exact_statistics else "sample"


def _unmeasured(draft: Draft, scorer: TileScorer) -> list[str]:
    """A note where scores only rank tiles."""
    if scorer.scoring == "none" or scorer.gains is not None:
        return []
    return [
        "tiles are told apart by their detail alone, and no loss in dB is told: what tiers"
        f" lighter than {draft.tiers[-1].label} lose was not measured"
    ]


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
        and metadata.pixel_unit is None
        and options.value_range is None
        and options.nodata is None
        and metadata.nodata is None
    )
    return "auto" if photo and load_kind_network(options.scale) is not None else "clean"


def in_family(
    inspection: Inspection, options: Options, family: Family, kind: Kind | None
) -> Inspection:
    """An inspection whose tiers are the default ones of a family. Refused: the policy cannot."""
    tiers = load_tiers(options.tier_labels_of(family), options.scale)
    policy, said = _policy(options, tiers, inspection.draft.grid)
    scorer = find_scorer(tiers, options.scale, policy, kind)
    draft = replace(
        inspection.draft,
        tiers=tiers,
        batch=_batches(tiers, inspection.draft.device),
        policy=policy,
        scoring=scorer.scoring,
        scorer=scorer.network,
        family=family,
        kind=kind,
        precision=precision_of(options, tiers, inspection.hardware),
    )
    said += [*_unmeasured(draft, scorer), *float32_notes(draft)]
    return replace(inspection, draft=draft, scorer=scorer, choices=tuple(said))


def _batches(tiers: Sequence[Tier], device: str) -> tuple[int, ...]:
    """Windows in one call, for each tier."""
    return tuple(1 if device == "cpu" else GPU_BATCH for _ in tiers)


def _networks(options: Options, begun: Plan | None) -> tuple[Tier, ...]:
    """The tiers that are asked for, with the weights of the stored plan where there is one."""
    if begun is None or not same_tiers(begun.tiers, options):
        return load_tiers(options.tier_labels, options.scale)
    return begun.tiers


def _policy(
    options: Options, tiers: Sequence[Tier], grid: Grid, begun: Plan | None = None
) -> tuple[Policy, list[str]]:
    """The policy that is carried out, and what is to be said of it.

    What a policy saves on few tiles is less than looking at them takes.
    """
    policy, count = options.policy, grid.tiles[0] * grid.tiles[1]
    if not isinstance(policy, MaxLoss | Deadline) or len(tiers) == 1:
        return policy, []
    if begun is not None and policy == begun.policy:
        return policy, []
    full = tiers[-1].label
    if count < FEW_TILES:
        return Full(), [f"{full} makes every tile: there are {count}, too few to tell apart"]
    if "policy" not in options.written and not is_measured(tiers, options.scale):
        return Full(), [
            f"{full} makes every tile: what lighter tiers lose was not measured; --budget 0.5"
            " takes half of the work"
        ]
    return policy, []


def _scorer(
    tiers: Sequence[Tier], scale: Fraction, policy: Policy, begun: Plan | None
) -> TileScorer:
    """How tiles are scored; those of a stored plan have their tiers."""
    if begun is not None and begun.tiers == tuple(tiers):
        return TileScorer(begun.scoring, begun.scorer)
    return find_scorer(tiers, scale, policy)


def _notes(draft: Draft, options: Options, info: SourceInfo) -> list[str]:
    """What is to be said of a draft's tiers, and of a value that the stored plan has."""
    notes = list(effort_notes(draft.tiers, draft.scale))
    if options.tiers is None and len(draft.tiers) == 1:
        notes.append(
            f"no network was made for scale {draft.scale}: {draft.tiers[0].label} makes every tile"
            " (tierscale models lists scales)"
        )
    nodata = draft.source.nodata
    if str(nodata) != str(info.nodata):  # as text, because the value may be NaN
        notes.append(f"the no-data value is {nodata}, as the output was begun")
    return notes
