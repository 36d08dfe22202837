"""Metadata of a TIFF page: profile, EXIF, resolution, GeoTIFF, and OME-XML, ImageJ, Aperio."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import Any

import tifffile

from tierscale.pipeline.formats.exif import clean_exif, lost_tags, tiff_exif, upright_xmp
from tierscale.pipeline.formats.metadata import PhotoMetadata
from tierscale.pipeline.formats.tiff.ome import UNITS, StackInfo, as_number, ome_info, positions
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


def tiff_metadata(
    tif: tifffile.TiffFile, selected: SelectedPages, uri: str
) -> tuple[PhotoMetadata, tuple[str, ...]]:
    """What the file says of the selected image, and a note for each damaged part left out.

    Smaller levels have what their page of full resolution says.
    """
    page, notes = selected.full, []
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
        plane=stack.plane,
        geo=geo,
        channel_names=stack.names,
        channel_colours=stack.colours,
        nodata=as_number(geo.get("GDAL_NODATA")) if geo else None,
    )
    return metadata.reduced(*selected.reduction), tuple(notes)


def page_exif(
    tif: tifffile.TiffFile, selected: SelectedPages, uri: str
) -> tuple[bytes | None, tuple[str, ...]]:
    """EXIF of the page, and the names of damaged tags.

    The description of scientific formats, which is no caption, is left out.
    """
    with open(uri, "rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exif = tiff_exif(file, selected.full.offset, tif.byteorder, tif.is_bigtiff)
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
        return ome_info(description, selected.number, selected.at)
    if selected.kind == "svs":
        microns = re.search(r"\|MPP = ([0-9.]+)", description)
        if microns is None or not float(microns[1]):
            return StackInfo()
        return StackInfo((float(microns[1]), float(microns[1])), "micrometer")
    if selected.kind == "imagej" and tif.imagej_metadata:
        unit = UNITS.get(str(tif.imagej_metadata.get("unit", "")).lower())
        steps = {"z": tif.imagej_metadata.get("spacing"), "t": tif.imagej_metadata.get("finterval")}
        plane = positions(selected.at, steps, {"z": unit, "t": "second"})
        if unit and resolution:
            return StackInfo((1 / resolution[1], 1 / resolution[0]), unit, plane=plane)
        return StackInfo(plane=plane)
    return StackInfo()
