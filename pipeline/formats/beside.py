"""Files beside an image that tell more of it: world files are read, others are named in a note."""

from __future__ import annotations

import os
import re
from dataclasses import replace

import numpy as np

from tierscale.pipeline.formats.georeference import (
    geo_from_transform,
    geo_transform,
    pixel_is_point,
)
from tierscale.pipeline.formats.orientation import UprightPixels
from tierscale.pipeline.formats.source import Source
from tierscale.pipeline.plan.options import Selection

# The code that stands last in the text of a coordinate system is that of the whole: WKT 1, WKT 2.
EPSG = re.compile(r'(?:AUTHORITY\["EPSG"\s*,\s*"(\d+)"\]|ID\["EPSG"\s*,\s*(\d+)\])\s*\]\s*$')
# A world file holds six numbers, a .prj one definition: what is longer is neither.
MOST_BYTES = 64 << 10


def read_beside(source: Source, path: str, selection: Selection) -> Source:
    """`source` with the place on the ground that a world file beside its file at `path` gives.

    What the file itself says of its place goes first. Notes tell what was read, and what was not.
    """
    stem, suffix = os.path.splitext(path)
    ending = suffix[1:].lower()
    world = (f"{ending[:1]}{ending[-1:]}w", f"{ending}w", "wld")
    places = _found(stem, [f"{stem}.{one}" for one in world])
    systems = _found(stem, [f"{stem}.prj"])
    others = _found(stem, [f"{path}.aux.xml", f"{stem}.aux.xml", f"{path}.msk"])
    why = _not_used(source, selection)
    corners = None if why or not places else world_transform(_text(places[0]))
    if corners is None:
        unread = [*others, *places, *systems]
        why = why if places or systems else ""
        if places and not why:
            why = f"{os.path.basename(places[0])} cannot be read as the six numbers of a world file"
        return replace(source, notes=(*source.notes, *_unread(unread, why)))
    code = epsg_code(_text(systems[0])) if systems else None
    stated = dict(source.metadata.geo or {})
    a, b, c, d, e, f = corners
    half = 0.5 if pixel_is_point(stated) else 0.0
    tied = (a, b, c + half * (a + b), d, e, f + half * (d + e))
    geo = geo_from_transform(tied, code, source.shape[1:])
    used = [places[0], *(systems[:1] if code else [])]
    names = " and ".join(os.path.basename(name) for name in used)
    notes = [f"its place on the ground was read from {names} beside it"]
    notes += [] if code or "GeoKeyDirectory" in stated else ["no EPSG code of its system is known"]
    left = [*others, *places[1:], *(() if code else systems)]
    return replace(
        source,
        metadata=replace(source.metadata, geo={**geo, **stated}),
        notes=(*source.notes, "; ".join(notes), *_unread(left, "")),
    )


def world_transform(text: str) -> list[float] | None:
    """The six numbers of `geo_transform`, by corners; world files tell of centres. None: no such.

    The order of a world file is a, d, b, e, then x and y of the centre of the first pixel.
    """
    try:
        a, d, b, e, x, y = (float(number) for number in text.replace(",", ".").split())
    except ValueError:
        return None
    if not np.isfinite((a, d, b, e, x, y)).all() or a * e == b * d:
        return None
    return [a, b, x - (a + b) / 2, d, e, y - (d + e) / 2]


def epsg_code(text: str) -> int | None:
    """The EPSG code of a coordinate system in WKT; None where it states none, as ESRI's do."""
    stated = EPSG.search(text)
    return int(stated[1] or stated[2]) if stated else None


def _not_used(source: Source, selection: Selection) -> str:
    """Why a world file is not used for an image, if it is not."""
    geo = source.metadata.geo or {}
    if geo_transform(geo) is not None or "ModelTiepoint" in geo:
        return "the image tells its place itself"
    if selection.level or selection.series:
        return "a world file tells of the first image in full resolution"
    if isinstance(source.pixels, UprightPixels) and source.pixels.orientation > 1:
        return "a world file tells of the pixels before they were set upright"
    return ""


def _unread(names: list[str], why: str) -> tuple[str, ...]:
    """A note on files that were not read, if there are any."""
    if not names:
        return ()
    listed = ", ".join(map(os.path.basename, names))
    verb = "lies" if len(names) == 1 else "lie"
    return (f"beside it {verb} {listed}, not read and not kept{why and f': {why}'}",)


def _found(stem: str, names: list[str]) -> list[str]:
    """Those of `names` that are files, with the ending as it is or in capitals."""
    spelled = [(name, stem + name[len(stem) :].upper()) for name in dict.fromkeys(names)]
    return [
        next(one for one in both if os.path.isfile(one))
        for both in spelled
        if any(map(os.path.isfile, both))
    ]


def _text(path: str) -> str:
    """A small text file; empty where it cannot be read, as one that says nothing, which is told."""
    try:
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            return file.read(MOST_BYTES)
    except OSError:
        return ""
