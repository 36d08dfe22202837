"""What attributes of zarrs state of a picture beside OME-NGFF: ours, geographic ones, no-data."""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from tierscale.pipeline.errors import Damaged
from tierscale.pipeline.formats.georeference import Geo, geo_from_transform
from tierscale.pipeline.formats.metadata import PhotoMetadata

# Attribute of the group of an output of tierscale.
OURS = "tierscale"


def own_metadata(attributes: Mapping[str, Any], level: int, uri: str) -> PhotoMetadata | None:
    """What an output of tierscale keeps of its picture, at a pyramid level; None: it is none.

    Each level has pixels of twice the size of the one before. Damaged: it cannot be read.
    """
    ours = attributes.get(OURS)
    facts = ours.get("facts") if isinstance(ours, Mapping) else None
    if not isinstance(facts, Mapping):
        return None
    try:
        return PhotoMetadata.from_json(facts).reduced(2.0**level, 2.0**level)
    except (KeyError, TypeError, ValueError) as error:
        raise Damaged(
            f'{uri}: what its attribute "{OURS}" keeps of the picture cannot be read ({error});'
            " remove the attribute, or fetch the zarr again"
        ) from error


def merged(own: PhotoMetadata, seen: PhotoMetadata) -> PhotoMetadata:
    """What tierscale kept of a picture, with what OME-NGFF says of sizes and of channels.

    On a map both say the same of sizes, and those of its own tags are kept.
    """
    channels = {
        name: getattr(seen, name) or getattr(own, name)
        for name in ("channel_names", "channel_colours", "channel_windows")
    }
    if own.geo is None or own.pixel_size is not None:
        space = {name: getattr(seen, name) for name in ("pixel_size", "pixel_unit", "origin")}
        return replace(own, **space, **channels)
    return replace(own, origin=in_pixels(seen), **channels)


def in_pixels(metadata: PhotoMetadata) -> tuple[float, float] | None:
    """The origin in pixels."""
    origin, size = metadata.origin, metadata.pixel_size or (1.0, 1.0)
    return None if origin is None else (origin[0] / size[0], origin[1] / size[1])


def stated_nodata(attributes: Mapping[str, Any]) -> float | None:
    """What marks missing values by the CF conventions: _FillValue, else missing_value.

    The fill value of the array itself is none: zarr's is 0 where nobody chose it. xarray writes
    _FillValue as text too: little-endian float64 in base64.
    """
    for name in ("_FillValue", "missing_value"):
        value = attributes.get(name)
        value = value[0] if isinstance(value, list) and len(value) == 1 else value
        if isinstance(value, int | float | str):
            with suppress(ValueError):
                return float(value)
        if isinstance(value, str):
            with suppress(ValueError, struct.error):
                return float(struct.unpack("<d", base64.b64decode(value, validate=True))[0])
    return None


def stated_geo(attributes: Mapping[str, Any], shape: Sequence[int]) -> Geo | None:
    """The place on the ground by the zarr conventions "proj" and "spatial", as GeoTIFF tags.

    shape: height and width. None: there is no transform, or its system has no code.
    """
    transform, code = attributes.get("spatial:transform"), stated_code(attributes)
    if not isinstance(transform, list) or len(transform) != 6 or code is None:
        return None
    with suppress(TypeError, ValueError):
        return geo_from_transform([float(value) for value in transform], code, shape)
    return None


def stated_code(attributes: Mapping[str, Any]) -> int | None:
    """The EPSG code of "proj:code", or of GDAL's "_CRS"; None: there is none."""
    system = attributes.get("_CRS")
    address = system.get("url") if isinstance(system, Mapping) else None
    for text in (attributes.get("proj:code"), address):
        found = re.search(r"EPSG(?::|/[^/]*/)(\d+)$", str(text))
        if found:
            return int(found[1])
    return None


def unread_place(attributes: Mapping[str, Any], geo: Geo | None) -> list[str]:
    """A note on a place on the ground that is stated and not kept, if there is one."""
    names = [name for name in ("_CRS", "spatial:transform", "grid_mapping") if name in attributes]
    if geo is not None or not names:
        return []
    return [f"its place on the ground ({', '.join(names)}) is not read, and is not kept"]
