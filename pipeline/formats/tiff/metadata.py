"""Metadata of a TIFF page: profile, EXIF, resolution, GeoTIFF, and OME-XML, ImageJ, Aperio."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import tifffile

from tierscale.pipeline.formats.blocks.xmp import true_xmp
from tierscale.pipeline.formats.metadata import PhotoMetadata
from tierscale.pipeline.formats.tiff.embedded import (
    GEO_TAGS,
    left_out,
    page_exif,
    page_iptc,
    page_profile,
)
from tierscale.pipeline.formats.tiff.pages import SelectedPages

# The first is that of full resolution: rows, then columns, in millimetres.
PHILIPS_SPACING = re.compile(
    r'DICOM_PIXEL_SPACING"[^>]*>\s*(?:&quot;|")([\d.eE+-]+)(?:&quot;|")\s*(?:&quot;|")([\d.eE+-]+)'
)
UNITS: Mapping[str, str] = {
    "µm": "micrometer",
    "μm": "micrometer",
    "um": "micrometer",
    "micron": "micrometer",
    "microns": "micrometer",
    "\\u00b5m": "micrometer",
    "nm": "nanometer",
    "mm": "millimeter",
    "cm": "centimeter",
    "m": "meter",
    "å": "angstrom",
    "pm": "picometer",
    "inch": "inch",
    "in": "inch",
}


@dataclass(frozen=True, slots=True)
class StackInfo:
    """What scientific formats say of an image.

    size: of a pixel, y then x, in `unit`. names, colours: of channels, as in PhotoMetadata.
    """

    size: tuple[float, float] | None = None
    unit: str | None = None
    names: tuple[str, ...] = ()
    colours: tuple[str, ...] = ()


def tiff_metadata(
    tif: tifffile.TiffFile, selected: SelectedPages
) -> tuple[PhotoMetadata, tuple[str, ...]]:
    """What the file says of the selected image, and notes on what is damaged or left out.

    A smaller level is what its full resolution says, in its own size: levels say little themselves.
    """
    page, full = selected.page, selected.full
    facts = page_exif(tif, selected)
    notes = [*facts.notes, *left_out(full)]
    geo = geo_tags(full)
    resolution, unit = page_resolution(full)
    stack = stack_info(tif, selected, resolution)
    xmp = full.tags.valueof(700)
    metadata = PhotoMetadata(
        icc=page_profile(full, notes),
        exif=facts.block,
        xmp=true_xmp(xmp) if isinstance(xmp, bytes) else None,
        iptc=page_iptc(full),
        resolution=resolution if unit or oblong(resolution) else None,
        resolution_unit=unit,
        pixel_size=stack.size,
        pixel_unit=stack.unit,
        geo=geo,
        channel_names=stack.names,
        channel_colours=stack.colours,
        nodata=as_number(geo.get("GDAL_NODATA")) if geo else None,
    )
    if page is not full:
        wide, high = page.imagewidth / full.imagewidth, page.imagelength / full.imagelength
        metadata = metadata.resized(wide, high)
    return metadata, tuple(notes)


def oblong(resolution: tuple[float, float] | None) -> bool:
    """Whether a resolution tells of pixels that are not square."""
    return resolution is not None and resolution[0] != resolution[1]


def geo_tags(page: Any) -> dict[str, Any] | None:
    """GeoTIFF and GDAL tags by name, as text or lists of numbers; None if the page has none."""
    values = {name: page.tags.valueof(code) for name, code in GEO_TAGS.items()}
    tags = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in values.items()
        if value is not None
    }
    return tags or None


def as_number(text: Any) -> float | None:
    """A GDAL no-data value, which is text in the file; None if it is no number."""
    try:
        return float(str(text).strip("\0 "))
    except ValueError:
        return None


def page_resolution(page: Any) -> tuple[tuple[float, float] | None, str | None]:
    """(pixels per unit, x then y, or None; the unit where the page names one)."""
    rationals = [page.tags.valueof(code) for code in (282, 283)]
    if any(not isinstance(r, tuple) or len(r) != 2 or not r[0] or not r[1] for r in rationals):
        return None, None
    x, y = (r[0] / r[1] for r in rationals)
    return (x, y), {2: "inch", 3: "centimetre"}.get(int(page.tags.valueof(296, 2)))


def stack_info(
    tif: tifffile.TiffFile, selected: SelectedPages, resolution: tuple[float, float] | None
) -> StackInfo:
    """What the kind of file tells of sizes and channels. resolution: pixels per unit, x then y."""
    description = tif.pages.first.description or ""
    if selected.kind == "ome" and description:
        return ome_info(description, selected.number)
    if selected.kind == "svs":
        microns = re.search(r"\|MPP = ([0-9.]+)", description)
        if microns is None or not float(microns[1]):
            return StackInfo()
        return StackInfo((float(microns[1]), float(microns[1])), "micrometer")
    spacing = PHILIPS_SPACING.search(description) if tif.is_philips else None
    if spacing is not None:
        y, x = (1000 * float(value) for value in spacing.groups())
        return StackInfo((y, x), "micrometer") if x and y else StackInfo()
    if selected.kind == "imagej" and tif.imagej_metadata:
        unit = UNITS.get(str(tif.imagej_metadata.get("unit", "")).lower())
        if unit and resolution:
            return StackInfo((1 / resolution[1], 1 / resolution[0]), unit)
    return StackInfo()


def ome_info(description: str, number: int) -> StackInfo:
    """Pixel size, channel names and colours of image `number` in an OME-XML text."""
    try:
        images = [
            element
            for element in ElementTree.fromstring(description)
            if element.tag.endswith("}Image")
        ]
        pixels = next(element for element in images[number] if element.tag.endswith("}Pixels"))
    except (ElementTree.ParseError, IndexError, StopIteration):
        return StackInfo()
    channels = [element for element in pixels if element.tag.endswith("}Channel")]
    names = tuple(channel.get("Name", "") for channel in channels)
    colours = [channel.get("Color") for channel in channels]
    y, x = as_number(pixels.get("PhysicalSizeY")), as_number(pixels.get("PhysicalSizeX"))
    unit = UNITS.get(pixels.get("PhysicalSizeXUnit", "µm").lower())
    measured = x and y and unit
    return StackInfo(
        size=(y, x) if x and y and unit else None,
        unit=unit if measured else None,
        names=names if any(names) else (),
        # OME stores RGBA as one signed 32-bit number.
        colours=tuple(f"{(int(colour) & 0xFFFFFFFF) >> 8:06X}" for colour in colours if colour)
        if all(colours)
        else (),
    )


def significant_bits(tif: tifffile.TiffFile) -> int | None:
    """The SignificantBits that OME-XML states, if any."""
    if not tif.is_ome:
        return None
    stated = re.search(r'SignificantBits="(\d+)"', tif.pages.first.description or "")
    return int(stated[1]) if stated else None
