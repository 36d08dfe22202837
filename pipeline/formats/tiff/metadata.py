"""Metadata of a TIFF page: profile, EXIF, resolution, GeoTIFF, and OME-XML, ImageJ, Aperio."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile

from tierscale.pipeline.formats.blocks.directories import Layout
from tierscale.pipeline.formats.blocks.exif import LOOKED_AT, ExifFacts, directory_facts
from tierscale.pipeline.formats.blocks.iptc import iptc_of
from tierscale.pipeline.formats.blocks.xmp import true_xmp
from tierscale.pipeline.formats.metadata import PhotoMetadata
from tierscale.pipeline.formats.profile import D65, REC709, profile
from tierscale.pipeline.formats.tiff.colour import rationals
from tierscale.pipeline.formats.tiff.pages import SelectedPages

GEO_TAGS: Mapping[str, int] = {
    "ModelPixelScale": 33550,
    "ModelTiepoint": 33922,
    "ModelTransformation": 34264,
    "GeoKeyDirectory": 34735,
    "GeoDoubleParams": 34736,
    "GeoAsciiParams": 34737,
    "GDAL_METADATA": 42112,
    "GDAL_NODATA": 42113,
    "RPCCoefficient": 50844,
}
DESCRIPTION_TAG = 270
# Tags that are read, or that say how the samples are stored and not what they show.
TAKEN_TAGS = frozenset(
    (
        *LOOKED_AT,
        *GEO_TAGS.values(),
        *range(254, 269),
        *(273, *range(277, 282), 284, *range(286, 294), 297, 301, *range(317, 326), 326, 327, 328),
        *(330, *range(332, 337), *range(338, 348), *range(512, 522), *range(529, 533), 559, 700),
        *range(32995, 32999),
        *(33723, 34377, 34675, 40965, 50706, 50707),
    )
)
NAMED = 8
# Kinds of files, as tifffile calls them and as people do, whose description is for programs.
DESCRIBING: Mapping[str, str] = {
    **{"ome": "OME-TIFF", "imagej": "ImageJ", "svs": "Aperio", "philips": "Philips"},
    **{"scn": "Leica SCN", "bif": "Ventana", "qpi": "PerkinElmer QPI", "ndpi": "Hamamatsu NDPI"},
    **{"mmstack": "Micro-Manager", "metaseries": "MetaMorph", "scanimage": "ScanImage"},
    **{"fluoview": "FluoView", "avs": "Argos AVS"},
}
# What OME-XML that tierscale wrote holds; there is nothing else in it.
OURS = 'Creator="tierscale"'
# How tifffile begins the description in which it keeps the shape of an array.
SHAPED = ('{"shape": ', "shape=")
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


def page_exif(tif: tifffile.TiffFile, selected: SelectedPages) -> ExifFacts:
    """EXIF of full resolution. Its description is the caption, unless a program wrote it for
    programs: sizes that it states would be false in an output.
    """
    page, file = selected.full, tif.filehandle

    def read(offset: int, length: int) -> bytes:
        file.seek(min(offset, file.size))
        return bytes(file.read(length))

    layout = Layout(read, tif.byteorder, tif.is_bigtiff)
    if not (page.description or "").startswith(SHAPED) and described_by(tif) is None:
        return directory_facts(layout, page.offset)
    facts = directory_facts(layout, page.offset, (DESCRIPTION_TAG,))
    kind = described_by(tif)
    note = f"of its {kind} description, only sizes, names and colours were kept"
    said = kind and OURS not in (page.description or "")
    return replace(facts, notes=(*facts.notes, note)) if said else facts


def described_by(tif: tifffile.TiffFile) -> str | None:
    """The kind of scientific file whose description programs read, by its name; None: none."""
    return next((name for kind, name in DESCRIBING.items() if getattr(tif, f"is_{kind}")), None)


def page_profile(page: Any, notes: list[str]) -> bytes | None:
    """The ICC profile of a page, or one of what its tags state of colours; appends to `notes`."""
    icc = page.tags.valueof(34675)
    if is_profile(icc):
        return bytes(icc)
    if icc is not None:
        notes.append("its ICC profile is damaged and was left out")
    return stated_profile(page)


def stated_profile(page: Any) -> bytes | None:
    """The profile of the tags WhitePoint, PrimaryChromaticities, TransferFunction (TIFF 6.0, 20).

    None: none of the last two is there, or they are impossible. The transfer is a table that all
    colours share, else the usual 1 / 2.2.
    """
    white, primaries = rationals(page.tags.valueof(318)), rationals(page.tags.valueof(319))
    table = page.tags.valueof(301)
    grey = page.photometric in (0, 1)
    if (table is None and primaries is None) or page.photometric not in (0, 1, 2, 3, 6):
        return None
    curve = None
    if isinstance(table, tuple) and len(table) in (2**bits * n for bits in (8, 16) for n in (1, 3)):
        size = len(table) if len(table) in (256, 65536) else len(table) // 3
        curve = np.asarray(table[:size], np.float32) / 65535
    points = (*(white or D65), *(primaries or REC709))
    if len(points) != 8 or min(points[1::2]) <= 0 or max(points) >= 1:
        return None
    return profile(2.2, curve=curve, white=points[:2], primaries=None if grey else points[2:])


def page_iptc(page: Any) -> bytes | None:
    """The IPTC datasets of a page, from their own tag or among Photoshop's resources.

    Some writers store them as numbers of 32 bits, in the order of bytes of the file.
    """
    for code in (33723, 34377):
        stored = page.tags.valueof(code)
        if isinstance(stored, tuple):
            stored = struct.pack(f"{page.parent.byteorder}{len(stored)}I", *stored)
        found = iptc_of(stored) if isinstance(stored, bytes) else None
        if found:
            return found
    return None


def left_out(page: Any) -> list[str]:
    """A note that names the tags of a page that an output does not hold, if there are any."""
    names = [tag.name or str(tag.code) for tag in page.tags if tag.code not in TAKEN_TAGS]
    if not names:
        return []
    others = f" and {len(names) - NAMED} others" if len(names) > NAMED else ""
    return [f"its tags {', '.join(names[:NAMED])}{others} were left out"]


def oblong(resolution: tuple[float, float] | None) -> bool:
    """Whether a resolution tells of pixels that are not square."""
    return resolution is not None and resolution[0] != resolution[1]


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
