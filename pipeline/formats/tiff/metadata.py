"""Metadata of a TIFF page: profile, EXIF, resolution, GeoTIFF, and OME-XML, ImageJ, Aperio."""

from __future__ import annotations

import re
from typing import Any

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
from tierscale.pipeline.formats.tiff.ome import UNITS, StackInfo, as_number, ome_info, positions
from tierscale.pipeline.formats.tiff.pages import SelectedPages

# The first is that of full resolution: rows, then columns, in millimetres.
PHILIPS_SPACING = re.compile(
    r'DICOM_PIXEL_SPACING"[^>]*>\s*(?:&quot;|")([\d.eE+-]+)(?:&quot;|")\s*(?:&quot;|")([\d.eE+-]+)'
)


def tiff_metadata(
    tif: tifffile.TiffFile, selected: SelectedPages
) -> tuple[PhotoMetadata, tuple[str, ...]]:
    """What the file says of the selected image, and notes on what is damaged or left out.

    A smaller level is what its full resolution says, in its own size: levels say little themselves.
    """
    full = selected.full
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
        plane=stack.plane,
        geo=geo,
        channel_names=stack.names,
        channel_colours=stack.colours,
        nodata=as_number(geo.get("GDAL_NODATA")) if geo else None,
    )
    return metadata.reduced(*selected.reduction), tuple(notes)


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
    spacing = PHILIPS_SPACING.search(description) if tif.is_philips else None
    if spacing is not None:
        y, x = (1000 * float(value) for value in spacing.groups())
        return StackInfo((y, x), "micrometer") if x and y else StackInfo()
    if selected.kind == "imagej" and tif.imagej_metadata:
        unit = UNITS.get(str(tif.imagej_metadata.get("unit", "")).lower())
        steps = {"z": tif.imagej_metadata.get("spacing"), "t": tif.imagej_metadata.get("finterval")}
        plane = positions(selected.at, steps, {"z": unit, "t": "second"})
        if unit and resolution:
            return StackInfo((1 / resolution[1], 1 / resolution[0]), unit, plane=plane)
        return StackInfo(plane=plane)
    return StackInfo()
