"""Metadata of a TIFF page: profile, EXIF, resolution, GeoTIFF, and OME-XML, ImageJ, Aperio."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import tifffile

from tierscale.pipeline.formats.exif import clean_exif, lost_tags, tiff_exif, upright_xmp
from tierscale.pipeline.formats.metadata import PhotoMetadata
from tierscale.pipeline.formats.tiff.pages import PLAIN_KINDS, SelectedPages

GEO_TAGS: Mapping[str, int] = {
    "ModelPixelScale": 33550,
    "ModelTiepoint": 33922,
    "ModelTransformation": 34264,
    "GeoKeyDirectory": 34735,
    "GeoDoubleParams": 34736,
    "GeoAsciiParams": 34737,
    "GDAL_METADATA": 42112,
    "GDAL_NODATA": 42113,
}
DESCRIPTION_TAG = 270
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
    tif: tifffile.TiffFile, selected: SelectedPages, uri: str
) -> tuple[PhotoMetadata, tuple[str, ...]]:
    """What the file says of the selected image, and a note for each damaged part left out."""
    page, notes = selected.page, []
    try:
        exif, lost = page_exif(tif, selected, uri)
        notes += lost_tags(lost)
    except Exception:  # a broken EXIF directory costs the EXIF, not the picture
        exif = None
        notes.append("its EXIF block is damaged and was left out")
    icc, xmp = page.tags.valueof(34675), page.tags.valueof(700)
    geo = geo_tags(page)
    resolution, unit = page_resolution(page)
    stack = stack_info(tif, selected, resolution)
    metadata = PhotoMetadata(
        icc=icc if is_profile(icc) else None,
        exif=exif,
        xmp=upright_xmp(xmp) if isinstance(xmp, bytes) else None,
        resolution=resolution if unit else None,
        resolution_unit=unit,
        pixel_size=stack.size,
        pixel_unit=stack.unit,
        geo=geo,
        channel_names=stack.names,
        channel_colours=stack.colours,
        nodata=as_number(geo.get("GDAL_NODATA")) if geo else None,
    )
    return metadata, tuple(notes)


def page_exif(
    tif: tifffile.TiffFile, selected: SelectedPages, uri: str
) -> tuple[bytes | None, tuple[str, ...]]:
    """EXIF of the page, and the names of damaged tags.

    The description of scientific formats, which is no caption, is left out.
    """
    with open(uri, "rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exif = tiff_exif(file, selected.page.offset, tif.byteorder, tif.is_bigtiff)
        caption = str(exif.get(DESCRIPTION_TAG, ""))
        plain = selected.kind in PLAIN_KINDS and not caption.startswith(("<", "{", "ImageJ="))
        if DESCRIPTION_TAG in exif and not plain:
            del exif[DESCRIPTION_TAG]
        return clean_exif(exif)


def is_profile(icc: Any) -> bool:
    """Whether the bytes are an ICC profile: its mark stands at byte 36."""
    return isinstance(icc, bytes) and icc[36:40] == b"acsp"


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
        full_width = tif.series[selected.number].keyframe.imagewidth
        side = float(microns[1]) * (full_width / selected.page.imagewidth)
        return StackInfo((side, side), "micrometer")
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
