"""Tags of a TIFF: profile, XMP, geography, resolution, and the OME-XML of a scientific image."""

from __future__ import annotations

from typing import Any

from tierscale.pipeline.formats.metadata import PhotoMetadata
from tierscale.pipeline.formats.tiff.metadata import GEO_TAGS
from tierscale.pipeline.output.export.common import Exported, per_metre
from tierscale.pipeline.output.export.tiff_exif import directory_tags

XMP_TAG = 700
# Units of OME-XML.
SHORT_UNITS = {
    "micrometer": "µm",
    "nanometer": "nm",
    "millimeter": "mm",
    "centimeter": "cm",
    "meter": "m",
    "angstrom": "Å",
    "picometer": "pm",
}


def metadata_options(image: Exported, big: bool) -> dict[str, Any]:
    """The metadata of an output as tifffile's options of the first page; big: in a BigTIFF."""
    metadata = image.metadata
    description, exif_tags = directory_tags(metadata.exif, big)
    options: dict[str, Any] = {
        "software": "tierscale",
        "extratags": _geo_tags(metadata) + _xmp_tags(metadata) + exif_tags,
        "iccprofile": metadata.icc,
        "metadata": None,
        **_resolution(metadata),
    }
    if image.colour == "channels":
        options["metadata"] = ome_metadata(metadata)
    elif description:
        options["description"] = description
    return options


def _geo_tags(metadata: PhotoMetadata) -> list[tuple[Any, ...]]:
    """GeoTIFF and GDAL tags, as extra tags of tifffile."""
    geo = dict(metadata.geo or {})
    if metadata.nodata is not None and "GDAL_NODATA" not in geo:
        geo["GDAL_NODATA"] = f"{metadata.nodata:.17g}"
    tags: list[tuple[Any, ...]] = []
    for name, value in geo.items():
        if isinstance(value, str):
            tags.append((GEO_TAGS[name], "s", 0, value, True))
        else:
            kind = "H" if name == "GeoKeyDirectory" else "d"
            tags.append((GEO_TAGS[name], kind, len(value), tuple(value), True))
    return tags


def _xmp_tags(metadata: PhotoMetadata) -> list[tuple[Any, ...]]:
    """The XMP packet, as an extra tag of tifffile."""
    return [(XMP_TAG, "B", len(metadata.xmp), metadata.xmp, True)] if metadata.xmp else []


def _resolution(metadata: PhotoMetadata) -> dict[str, Any]:
    """Pixels per inch or centimetre as the source said, else from the physical size of a pixel."""
    if metadata.resolution and metadata.resolution_unit:
        unit = "INCH" if metadata.resolution_unit == "inch" else "CENTIMETER"
        return {"resolution": metadata.resolution, "resolutionunit": unit}
    density = per_metre(metadata)
    if density is None:
        return {}
    return {
        "resolution": (density[0] / 100, density[1] / 100),
        "resolutionunit": "CENTIMETER",
    }


def ome_metadata(metadata: PhotoMetadata) -> dict[str, Any]:
    """Axes, channel names and colours, and pixel size for the OME-XML of a scientific image."""
    options: dict[str, Any] = {"axes": "CYX"}
    channel: dict[str, Any] = {}
    if metadata.channel_names:
        channel["Name"] = list(metadata.channel_names)
    if metadata.channel_colours:
        signed = [int(colour, 16) << 8 | 0xFF for colour in metadata.channel_colours]
        channel["Color"] = [value - (1 << 32) if value >= 1 << 31 else value for value in signed]
    if channel:
        options["Channel"] = channel
    if metadata.pixel_size and metadata.pixel_unit in SHORT_UNITS:
        y, x = metadata.pixel_size
        unit = SHORT_UNITS[metadata.pixel_unit]
        options |= {
            "PhysicalSizeX": x,
            "PhysicalSizeXUnit": unit,
            "PhysicalSizeY": y,
            "PhysicalSizeYUnit": unit,
        }
    return options
