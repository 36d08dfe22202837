"""Tiles and strips that a TIFF says were never written: offset and length are 0.

GDAL and scanners of slides leave out what is empty; readers fill it in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tifffile

from tierscale.pipeline.formats.tiff.pages import SelectedPages
from tierscale.pipeline.plan.value_range import holds

APERIO_YCBCR = 33003
SLIDES = ("svs", "ndpi", "scn", "bif", "philips", "qpi", "avs")


@dataclass(frozen=True, slots=True)
class Fill:
    """What stands where nothing was written: a value for each stored sample, and its name."""

    values: tuple[float, ...]
    name: str


def fill_of(tif: tifffile.TiffFile, page: Any, nodata: float | None) -> Fill:
    """No-data where it is stated, the white of a slide's glass, else 0 as in GDAL."""
    samples = page.samplesperpixel
    if nodata is not None and holds(nodata, np.dtype(page.dtype)):
        return Fill((nodata,) * samples, f"filled with the no-data value {nodata:g}")
    slide = any(getattr(tif, f"is_{kind}", False) for kind in SLIDES)
    if slide and samples == 3 and page.dtype == np.uint8:
        # The samples of this one kind of JPEG 2000 are YCbCr until they are converted.
        white = (255, 128, 128) if page.compression == APERIO_YCBCR else (255, 255, 255)
        return Fill(white, "white")
    return Fill((0,) * samples, "filled with 0")


def unwritten_notes(selected: SelectedPages, fill: Fill) -> tuple[str, ...]:
    """A note with the number of tiles or strips that were never written, if there are any."""
    missing = total = 0
    for plane in {id(plane): plane for plane, _ in selected.planes}.values():
        offsets, counts = np.asarray(plane.dataoffsets), np.asarray(plane.databytecounts)
        missing += int(((offsets == 0) & (counts == 0)).sum())
        total += len(offsets)
    what = "tiles" if selected.page.is_tiled else "strips"
    return (f"{missing} of {total} {what} were never written; they are {fill.name}",) * bool(
        missing
    )
