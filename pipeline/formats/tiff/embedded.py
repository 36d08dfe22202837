"""What the tags of a TIFF page hold: EXIF, profile, IPTC, and what of them is left out."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import tifffile

from tierscale.pipeline.formats.blocks.directories import Layout
from tierscale.pipeline.formats.blocks.exif import LOOKED_AT, ExifFacts, directory_facts
from tierscale.pipeline.formats.blocks.iptc import iptc_of
from tierscale.pipeline.formats.profile import D65, REC709, are_chromaticities, is_profile, profile
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
# Entries of a transfer table by those of the tag, which holds one or one for each colour.
TRANSFER_TABLES = {256: 256, 768: 256, 65536: 65536, 196608: 65536}
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
    curve, stated = None, np.ravel(np.asarray(() if table is None else table, np.float32))
    if len(stated) in TRANSFER_TABLES:
        curve = stated[: TRANSFER_TABLES[len(stated)]] / 65535
    points = (*(white or D65), *(primaries or REC709))
    if not are_chromaticities(points):
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
