"""What is seen of a source without reading its pixels, and whether it is the same one again."""

import contextlib
import math
import os
from dataclasses import dataclass, replace

from tierscale.pipeline.errors import Damaged, Refused
from tierscale.pipeline.formats.fingerprint import stamp_of
from tierscale.pipeline.formats.metadata import PhotoMetadata
from tierscale.pipeline.formats.registry import open_image
from tierscale.pipeline.formats.source import Source, Stamp
from tierscale.pipeline.plan.options import Options, Region, Selection
from tierscale.pipeline.plan.plan import Draft
from tierscale.pipeline.plan.value_range import holds


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """What was seen of a source without reading its pixels.

    uri: absolute path or address. metadata: of the source; scaled_metadata: of the enlarged image.
    needs_ingest: whether windows can be read from a copy only. copy_bytes: of that copy before
    compression; 0: there is none. decode_bytes: most memory that
    reading or ingesting takes beside the window that is asked for. nodata: value that marks missing
    pixels, or None. stamp: of a local file when it was opened; None: of anything else.
    jpeg_quality: of a JPEG, by its tables.
    """

    uri: str
    selection: Selection
    metadata: PhotoMetadata
    scaled_metadata: PhotoMetadata
    needs_ingest: bool
    copy_bytes: int
    decode_bytes: int
    nodata: float | None
    notes: tuple[str, ...]
    stamp: Stamp | None
    jpeg_quality: int | None


def describe_source(image: Source, options: Options) -> SourceInfo:
    """What is seen of an opened image."""
    metadata = replace(image.metadata, bits=image.bits)
    nodata = options.nodata if options.nodata is not None else metadata.nodata
    notes = tuple(image.notes)
    if nodata is not None and not holds(nodata, image.dtype):
        note = (
            f"the no-data value {nodata:g} cannot occur in {image.dtype.name} pixels; it marks none"
        )
        notes, nodata = (*notes, note), None
    if options.scale == 1:
        notes = (*notes, "scale 1 enlarges nothing: the output has the pixels of the source")
    part = metadata
    if options.region is not None:
        part = metadata.cropped(options.region[0], options.region[1])
    return SourceInfo(
        uri=os.path.abspath(image.uri) if "://" not in image.uri else image.uri,
        selection=options.selection,
        metadata=metadata,
        scaled_metadata=part.scaled(options.scale),
        needs_ingest=not image.random_access,
        copy_bytes=0 if image.random_access else math.prod(image.shape) * image.dtype.itemsize,
        decode_bytes=image.decode_bytes,
        nodata=nodata,
        notes=notes,
        stamp=image.stamp,
        jpeg_quality=image.jpeg_quality,
    )


def region_shape(image: Source, region: Region | None) -> tuple[int, int, int]:
    """Channels, height and width of a region. Refused: it is not inside, or there are no pixels."""
    channels, height, width = image.shape
    if height < 1 or width < 1 or channels < 1:
        raise Refused(
            f"{image.uri} has no pixels ({channels} channels of {height}x{width}); check how it was"
            " written"
        )
    if region is None:
        return image.shape
    x, y, wide, tall = region
    if wide < 1 or tall < 1 or x < 0 or y < 0 or x + wide > width or y + tall > height:
        raise Refused(
            f"the region {x},{y},{wide},{tall} is not inside the image of {width}x{height} pixels;"
            " give X,Y,WIDTH,HEIGHT in pixels of the source"
        )
    return channels, tall, wide


def reopen(draft: Draft) -> SourceInfo:
    """The source of a stored plan. Refused: it is not the same image any more."""
    uri, selection = draft.source.uri, draft.source.selection
    with open_image(uri, selection) as image:
        if dict(image.identity) != draft.source.identity:
            raise Refused(
                f"{uri} is not the image that was planned (its content changed); restore it, or"
                " begin anew with --overwrite"
            )
        if region_shape(image, draft.source.region) != draft.shape:
            raise Refused(
                f"{uri}: this version takes another image of the file than the one that was"
                " planned; begin anew with --overwrite"
            )
        options = Options(scale=draft.scale, region=draft.source.region, nodata=draft.source.nodata)
        return describe_source(image, options)


def check_unchanged(draft: Draft, info: SourceInfo) -> None:
    """Damaged: the source is not what it was when the run began, so shards may be of two images.

    A local file whose stamp is the same is not read again.
    """
    with contextlib.suppress(OSError):
        if info.stamp is not None and stamp_of(info.uri) == info.stamp:
            return
    with open_image(info.uri, info.selection) as image:
        if dict(image.identity) != draft.source.identity:
            raise Damaged(
                f"{info.uri} was changed while it was enlarged; run the same command again with"
                " --overwrite"
            )
