"""Tags of a TIFF: profile, XMP, geography, resolution, and the OME-XML of a scientific image."""

from __future__ import annotations

from typing import Any
from xml.sax.saxutils import quoteattr

import zarr

from tierscale.pipeline.formats.metadata import PhotoMetadata
from tierscale.pipeline.formats.profile import srgb
from tierscale.pipeline.formats.tiff.embedded import GEO_TAGS
from tierscale.pipeline.output.export.common import Exported, per_metre
from tierscale.pipeline.output.export.tiff_exif import directory_tags

XMP_TAG, IPTC_TAG = 700, 33723
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

SHORT_TIMES = {
    "second": "s",
    "millisecond": "ms",
    "microsecond": "µs",
    "minute": "min",
    "hour": "h",
    "day": "d",
}
OME_TYPES = {"float32": "float", "float64": "double"} | {
    name: name for name in ("uint8", "int8", "uint16", "int16", "uint32", "int32")
}
OME_ROOT = (
    '<?xml version="1.0" encoding="UTF-8"?>'
    '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"'
    ' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
    ' xsi:schemaLocation="http://www.openmicroscopy.org/Schemas/OME/2016-06'
    ' http://www.openmicroscopy.org/Schemas/OME/2016-06/ome.xsd" Creator="tierscale">'
)


def first_options(image: Exported, level: zarr.Array, big: bool) -> dict[str, Any]:
    """The metadata of an output as tifffile's options of the first page; big: in a BigTIFF.

    level: of full resolution. The description is the caption of the source; where there is none, it
    tells the readers of OME-TIFF what the pages are.
    """
    metadata = image.metadata
    description, exif_tags = directory_tags(metadata.exif, big)
    options: dict[str, Any] = {
        "software": "tierscale",
        "extratags": _geo_tags(metadata) + _packets(metadata) + exif_tags,
        "iccprofile": metadata.icc or (srgb() if metadata.srgb else None),
        "metadata": None,
        **_resolution(metadata, 1.0),
    }
    if image.has_planes:
        caption = {"Description": description.decode(errors="replace")} if description else {}
        options["metadata"] = ome_metadata(image) | caption
    elif description:
        options["description"] = description
    elif not image.is_raster and level.dtype.name in OME_TYPES:
        options["description"] = ome_xml(image, level)
    return options


def level_options(image: Exported, ratio: float) -> dict[str, Any]:
    """The metadata of a smaller level. ratio: its width as a share of full resolution."""
    metadata = image.metadata
    nodata = _nodata(metadata)
    return {
        "software": "tierscale",
        "extratags": [_text_tag("GDAL_NODATA", nodata)] if nodata else [],
        "iccprofile": metadata.icc or (srgb() if metadata.srgb else None),
        "metadata": None,
        **_resolution(metadata, ratio),
    }


def _nodata(metadata: PhotoMetadata) -> str | None:
    """The value of pixels without data, as GDAL writes it."""
    stated = (metadata.geo or {}).get("GDAL_NODATA")
    if stated is None and metadata.nodata is not None:
        return f"{metadata.nodata:.17g}"
    return stated


def _text_tag(name: str, text: str) -> tuple[Any, ...]:
    """A tag of text, as an extra tag of tifffile; in UTF-8, as GDAL reads it."""
    return GEO_TAGS[name], "s", 0, text.encode(), True


def _geo_tags(metadata: PhotoMetadata) -> list[tuple[Any, ...]]:
    """GeoTIFF and GDAL tags, as extra tags of tifffile."""
    geo, nodata = dict(metadata.geo or {}), _nodata(metadata)
    if nodata is not None:
        geo["GDAL_NODATA"] = nodata
    tags: list[tuple[Any, ...]] = []
    for name, value in geo.items():
        if isinstance(value, str):
            tags.append(_text_tag(name, value))
        else:
            kind = "H" if name == "GeoKeyDirectory" else "d"
            tags.append((GEO_TAGS[name], kind, len(value), tuple(value), True))
    return tags


def _packets(metadata: PhotoMetadata) -> list[tuple[Any, ...]]:
    """The XMP packet and the IPTC datasets, as extra tags of tifffile."""
    packets = ((XMP_TAG, metadata.xmp), (IPTC_TAG, metadata.iptc))
    return [(tag, "B", len(packet), packet, True) for tag, packet in packets if packet]


def _resolution(metadata: PhotoMetadata, ratio: float) -> dict[str, Any]:
    """Pixels per inch or centimetre as the source said, else from the physical size of a pixel.

    Without a unit only their ratio is known. ratio: width of the page as a share of full
    resolution.
    """
    if metadata.resolution and not metadata.resolution_unit:
        return {"resolution": metadata.resolution, "resolutionunit": "NONE"}
    unit, density, per_unit = "CENTIMETER", per_metre(metadata), 100.0
    if metadata.resolution and metadata.resolution_unit:
        unit = "INCH" if metadata.resolution_unit == "inch" else "CENTIMETER"
        density, per_unit = metadata.resolution, 1.0
    if density is None:
        return {}
    x, y = (value / per_unit * ratio for value in density)
    return {"resolution": (x, y), "resolutionunit": unit}


def ome_metadata(image: Exported) -> dict[str, Any]:
    """Axes, names, colours, bits and pixel size for the OME-XML of a scientific image."""
    metadata = image.metadata
    options: dict[str, Any] = {"axes": "CYX", "Name": image.name(), **_pixel_facts(metadata)}
    channel: dict[str, Any] = {}
    if metadata.channel_names:
        channel["Name"] = list(metadata.channel_names)
    if metadata.channel_colours:
        signed = [int(colour, 16) << 8 | 0xFF for colour in metadata.channel_colours]
        channel["Color"] = [value - (1 << 32) if value >= 1 << 31 else value for value in signed]
    if channel:
        options["Channel"] = channel
    plane = _plane_facts(metadata, image.levels()[0].shape[0])
    return options | ({"Plane": plane} if plane else {})


def _plane_facts(metadata: PhotoMetadata, channels: int) -> dict[str, Any]:
    """Where the plane lies in the stack that it is of, for each channel."""
    names = {"z": ("PositionZ", SHORT_UNITS), "t": ("DeltaT", SHORT_TIMES)}
    facts: dict[str, Any] = {}
    for axis, _, place, unit in metadata.plane:
        if axis in names and unit in names[axis][1]:
            name, units = names[axis]
            facts |= {name: [place] * channels, f"{name}Unit": [units[unit]] * channels}
    return facts


def ome_xml(image: Exported, level: zarr.Array) -> bytes:
    """OME-XML of an image of one page, grey or colours: UTF-8.

    It claims no size of pixels that the source does not state.
    """
    samples, height, width = level.shape
    stated = _pixel_facts(image.metadata).items()
    facts = "".join(f" {name}={quoteattr(str(value))}" for name, value in stated)
    return (
        f'{OME_ROOT}<Image ID="Image:0" Name={quoteattr(image.name())}>'
        f'<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="{OME_TYPES[level.dtype.name]}"'
        f' SizeX="{width}" SizeY="{height}" SizeC="{samples}" SizeZ="1" SizeT="1"'
        f' Interleaved="true"{facts}><Channel ID="Channel:0:0" SamplesPerPixel="{samples}"/>'
        '<TiffData IFD="0" PlaneCount="1"/></Pixels></Image></OME>'
    ).encode()


def _pixel_facts(metadata: PhotoMetadata) -> dict[str, Any]:
    """What OME-XML says of all pixels: significant bits and physical size, where known."""
    facts: dict[str, Any] = {"SignificantBits": metadata.bits} if metadata.bits else {}
    if metadata.pixel_size and metadata.pixel_unit in SHORT_UNITS:
        y, x = metadata.pixel_size
        unit = SHORT_UNITS[metadata.pixel_unit]
        facts |= {
            "PhysicalSizeX": x,
            "PhysicalSizeXUnit": unit,
            "PhysicalSizeY": y,
            "PhysicalSizeYUnit": unit,
        }
    return facts
