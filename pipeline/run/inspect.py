"""What is seen of a source without reading its pixels, and whether it is the same one again."""

import os
from dataclasses import dataclass

from tierscale.pipeline.errors import Damaged, Refused
from tierscale.pipeline.formats.metadata import PhotoMetadata
from tierscale.pipeline.formats.registry import Selection, Source, open_image
from tierscale.pipeline.inference.normalise import holds
from tierscale.pipeline.plan.plan import Options, Plan


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """What was seen of a source without reading its pixels. facts: of the source; hr_facts: of the
    enlarged image.

    decode_bytes: most memory that reading or ingesting takes beside the window that is asked for.
    """

    uri: str
    selection: Selection
    facts: PhotoMetadata
    scaled_metadata: PhotoMetadata
    needs_ingest: bool
    decode_bytes: int
    nodata: float | None
    notes: tuple[str, ...]


def describe_source(image: Source, options: Options) -> SourceInfo:
    """What is seen of an opened image."""
    facts = image.metadata
    nodata = options.nodata if options.nodata is not None else facts.nodata
    notes = tuple(image.notes)
    if nodata is not None and not holds(nodata, image.dtype):
        notes = (
            *notes,
            (
                f"the no-data value {nodata:g} cannot occur in {image.dtype.name} pixels and marks"
                " none"
            ),
        )
        nodata = None
    scaled_metadata = (
        facts if options.region is None else facts.cropped(options.region[0], options.region[1])
    )
    return SourceInfo(
        uri=os.path.abspath(image.uri) if "://" not in image.uri else image.uri,
        selection=Selection(options.series, options.level, options.z, options.t),
        facts=facts,
        scaled_metadata=scaled_metadata.scaled(options.scale),
        needs_ingest=not image.random_access,
        decode_bytes=image.decode_bytes,
        nodata=nodata,
        notes=notes,
    )


def region_shape(image: Source, region: tuple[int, int, int, int] | None) -> tuple[int, int, int]:
    """Channels, height and width of a region (x, y, width, height). Refused: it is not inside the
    image, or there are no pixels.
    """
    channels, height, width = image.shape
    if height < 1 or width < 1 or channels < 1:
        raise Refused(f"{image.uri} has no pixels ({channels} channels of {height}x{width})")
    if region is None:
        return image.shape
    x, y, wide, tall = region
    if wide < 1 or tall < 1 or x < 0 or y < 0 or x + wide > width or y + tall > height:
        raise Refused(
            f"the region {x},{y},{wide},{tall} is not inside the image of {width}x{height} pixels"
        )
    return channels, tall, wide


def reopen(plan: Plan) -> SourceInfo:
    """The source of a stored plan. Refused: it is not the same image any more."""
    selection = Selection(**plan.source["selection"])
    with open_image(plan.source["uri"], selection) as image:
        if dict(image.identity) != plan.source["identity"]:
            raise Refused(
                f"{plan.source['uri']} is not the image that was planned (its content changed);"
                " restore it, or begin anew with --overwrite"
            )
        return SourceInfo(
            image.uri,
            selection,
            image.metadata,
            image.metadata,
            not image.random_access,
            image.decode_bytes,
            None,
            (),
        )


def check_unchanged(plan: Plan, found: SourceInfo) -> None:
    """Damaged: the source is not what it was when the run began, so that shards may be of two
    images.
    """
    with open_image(found.uri, found.selection) as image:
        if dict(image.identity) != plan.source["identity"]:
            raise Damaged(
                f"{found.uri} was changed while it was enlarged; give the command again with"
                " --overwrite"
            )
