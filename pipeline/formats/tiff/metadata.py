"""Photo facts of a TIFF page: profile, EXIF, resolution, GeoTIFF tags, and what OME-XML, ImageJ and
Aperio say of size and channels.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

import tifffile

from tierscale.pipeline.formats.metadata import PhotoMetadata, clean_exif, tiff_exif, upright_xmp
from tierscale.pipeline.formats.tiff.pages import PLAIN_KINDS, Picked

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
    "µm": "micrometer", "μm": "micrometer", "um": "micrometer", "micron": "micrometer", "microns": "micrometer", "\\u00b5m": "micrometer",
    "nm": "nanometer", "mm": "millimeter", "cm": "centimeter", "m": "meter", "å": "angstrom", "pm": "picometer",
    "inch": "inch", "in": "inch",
}  # fmt: skip


def tiff_facts(
    tif: tifffile.TiffFile, picked: Picked, uri: str
) -> tuple[PhotoMetadata, tuple[str, ...]]:
    """What the file says of the picked image, and a note for each part that is damaged and was left
    out.
    """
    page, notes = picked.page, []
    try:
        exif = page_exif(tif, picked, uri)
    except Exception:  # a broken EXIF directory costs the EXIF, not the picture
        exif = None
        notes.append("its EXIF block is damaged and was left out")
    icc, xmp = page.tags.valueof(34675), page.tags.valueof(700)
    icc = icc if is_profile(icc) else None
    geo = geo_tags(page)
    resolution, unit = page_resolution(page)
    size, names, colours = stack_facts(tif, picked, resolution)
    facts = PhotoMetadata(
        icc=icc,
        exif=exif,
        xmp=upright_xmp(xmp) if isinstance(xmp, bytes) else None,
        resolution=resolution if unit else None,
        resolution_unit=unit,
        pixel_size=size[:2] if size else None,
        pixel_unit=size[2] if size else None,
        geo=geo,
        channel_names=names,
        channel_colours=colours,
        nodata=as_number(geo.get("GDAL_NODATA")) if geo else None,
    )
    return facts, tuple(notes)


def page_exif(tif: tifffile.TiffFile, picked: Picked, uri: str) -> bytes | None:
    """EXIF of the page. The image description of scientific formats is layout, not a caption, and
    stays behind.
    """
    with open(uri, "rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exif = tiff_exif(file, picked.page.offset, tif.byteorder, tif.is_bigtiff)
        if DESCRIPTION_TAG in exif and (
            picked.kind not in PLAIN_KINDS
            or str(exif[DESCRIPTION_TAG]).startswith(("<", "{", "ImageJ="))
        ):
            del exif[DESCRIPTION_TAG]
        return clean_exif(exif)[0]


def is_profile(icc: Any) -> bool:
    """Whether the bytes are an ICC profile: its mark stands at byte 36."""
    return isinstance(icc, bytes) and icc[36:40] == b"acsp"


def geo_tags(page: Any) -> dict[str, Any] | None:
    """GeoTIFF and GDAL tags by name, as text or lists of numbers; None if the page has none."""
    found: dict[str, Any] = {}
    for name, code in GEO_TAGS.items():
        value = page.tags.valueof(code)
        if value is not None:
            found[name] = (
                value
                if isinstance(value, str)
                else list(value)
                if isinstance(value, tuple)
                else value
            )
    return found or None


def as_number(text: Any) -> float | None:
    """A GDAL no-data value, which is text in the file; None if it is no number."""
    try:
        return float(str(text).strip("\0 "))
    except ValueError:
        return None


def page_resolution(page: Any) -> tuple[tuple[float, float] | None, str | None]:
    """(pixels per unit, x then y), and the unit where the page names one; zero and missing
    resolutions are None.
    """
    rationals = [page.tags.valueof(code) for code in (282, 283)]
    if any(not isinstance(r, tuple) or len(r) != 2 or not r[0] or not r[1] for r in rationals):
        return None, None
    x, y = (r[0] / r[1] for r in rationals)
    return (x, y), {2: "inch", 3: "centimetre"}.get(int(page.tags.valueof(296, 2)))


def stack_facts(
    tif: tifffile.TiffFile, picked: Picked, resolution: tuple[float, float] | None
) -> tuple[tuple[float, float, str] | None, tuple[str, ...], tuple[str, ...]]:
    """((height, width, unit) of a pixel or None, channel names, channel colours) as far as the kind
    of file tells.
    """
    if picked.kind == "ome" and tif.pages.first.description:
        return ome_facts(tif.pages.first.description, picked.number)
    if picked.kind == "svs":
        mpp = re.search(r"\|MPP = ([0-9.]+)", tif.pages.first.description or "")
        shrunk = tif.series[picked.number].keyframe.imagewidth / picked.page.imagewidth
        return (
            (
                (float(mpp[1]) * shrunk, float(mpp[1]) * shrunk, "micrometer")
                if mpp and float(mpp[1])
                else None
            ),
            (),
            (),
        )
    if picked.kind == "imagej" and tif.imagej_metadata:
        unit = UNITS.get(str(tif.imagej_metadata.get("unit", "")).lower())
        size = (1 / resolution[1], 1 / resolution[0], unit) if unit and resolution else None
        return size, (), ()
    return None, (), ()


def ome_facts(
    description: str, number: int
) -> tuple[tuple[float, float, str] | None, tuple[str, ...], tuple[str, ...]]:
    """Pixel size, channel names and colours of image `number` in an OME-XML text."""
    try:
        images = [
            element
            for element in ElementTree.fromstring(description)
            if element.tag.endswith("}Image")
        ]
        pixels = next(element for element in images[number] if element.tag.endswith("}Pixels"))
    except (ElementTree.ParseError, IndexError, StopIteration):
        return None, (), ()
    channels = [element for element in pixels if element.tag.endswith("}Channel")]
    y, x = as_number(pixels.get("PhysicalSizeY")), as_number(pixels.get("PhysicalSizeX"))
    unit = UNITS.get(pixels.get("PhysicalSizeXUnit", "µm").lower())
    names = tuple(channel.get("Name", "") for channel in channels)
    colours = [channel.get("Color") for channel in channels]
    # OME stores RGBA as one signed 32-bit number.
    shown = (
        tuple(f"{(int(colour) & 0xFFFFFFFF) >> 8:06X}" for colour in colours if colour)
        if all(colours)
        else ()
    )
    return ((y, x, unit) if x and y and unit else None), (names if any(names) else ()), shown


def significant_bits(tif: tifffile.TiffFile) -> int | None:
    """The SignificantBits that OME-XML states, if any."""
    found = (
        re.search(r'SignificantBits="(\d+)"', tif.pages.first.description or "")
        if tif.is_ome
        else None
    )
    return int(found[1]) if found else None
