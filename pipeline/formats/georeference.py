"""GeoTIFF tags of rasters that are enlarged or cropped: no place on the ground moves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

import numpy as np

# GeoTIFF and GDAL tags by name: lists of numbers, or text.
Geo = Mapping[str, Any]

PIXEL_IS_POINT = 2
PROJECTED = 1
METRE = 9001
# Keys of the GeoKeyDirectory, and the value of the two codes that means "defined by other keys".
MODEL_TYPE_KEY, RASTER_TYPE_KEY = 1024, 1025
GEOGRAPHIC_KEY, PROJECTED_KEY, LINEAR_UNITS_KEY = 2048, 3072, 3076
USER_DEFINED = 32767


def geo_keys(geo: Geo) -> dict[int, int]:
    """The entries of the GeoKeyDirectory that hold their number themselves."""
    keys = geo.get("GeoKeyDirectory") or []
    return {int(keys[i]): int(keys[i + 3]) for i in range(4, len(keys) - 3, 4) if keys[i + 1] == 0}


def pixel_is_point(geo: Geo) -> bool:
    """Whether raster coordinates are centres of pixels, not corners (GTRasterTypeGeoKey 2)."""
    return geo_keys(geo).get(RASTER_TYPE_KEY) == PIXEL_IS_POINT


def crs_code(geo: Geo) -> str | None:
    """The coordinate reference system, such as "EPSG:32632"; None: it has no code."""
    keys = geo_keys(geo)
    code = keys.get(PROJECTED_KEY) or keys.get(GEOGRAPHIC_KEY)
    return f"EPSG:{code}" if code and 1024 <= code < USER_DEFINED else None


def ground_pixel(geo: Geo) -> tuple[float, float] | None:
    """Size of a pixel in metres of a projected system, y then x; None: not known to be so."""
    keys = geo_keys(geo)
    metric = keys.get(LINEAR_UNITS_KEY, METRE) == METRE
    if "ModelPixelScale" not in geo or keys.get(MODEL_TYPE_KEY) != PROJECTED or not metric:
        return None
    x, y = geo["ModelPixelScale"][:2]
    return float(y), float(x)


def geo_transform(geo: Geo) -> list[float] | None:
    """Six numbers a, b, c, d, e, f: the corner (column, row) of pixels lies at x = a column +
    b row + c, y = d column + e row + f. None: there are none, or ground control points instead.
    """
    half = 0.5 if pixel_is_point(geo) else 0.0
    if "ModelTransformation" in geo:
        a, b, _, c, d, e, _, f = (float(value) for value in geo["ModelTransformation"][:8])
    elif "ModelPixelScale" in geo and len(geo.get("ModelTiepoint", ())) == 6:
        column, row, _, x, y, _ = (float(value) for value in geo["ModelTiepoint"])
        a, e = float(geo["ModelPixelScale"][0]), -float(geo["ModelPixelScale"][1])
        b, d, c, f = 0.0, 0.0, x - column * a, y - row * e
    else:
        return None
    return [a, b, c - half * (a + b), d, e, f - half * (d + e)]


def band_names(geo: Geo, bands: int) -> tuple[str, ...]:
    """Names of bands that GDAL_METADATA gives, "" where it gives none; empty: it names none."""
    names = [""] * bands
    try:
        items = list(ElementTree.fromstring(str(geo.get("GDAL_METADATA", "<none/>")).strip("\0 ")))
    except ElementTree.ParseError:
        return ()
    for item in items:
        sample = item.get("sample", "")
        if item.get("role") == "description" and sample.isdigit() and int(sample) < bands:
            names[int(sample)] = item.text or ""
    return tuple(names) if any(names) else ()


def geo_from_transform(
    transform: Sequence[float], code: int | None, shape: Sequence[int]
) -> dict[str, Any]:
    """GeoTIFF tags of a raster of a height and width (`shape`) whose corners lie as in
    `geo_transform`, in the system EPSG:`code`; None: one that is not known.

    guess: codes do not tell degrees from metres. Most geographic systems have one from 4000 to
    4999, and coordinates of the others are as small as degrees are.
    """
    a, b, c, d, e, f = transform
    if b == d == 0 and a > 0 > e:
        place = {"ModelPixelScale": [a, -e, 0.0], "ModelTiepoint": [0.0, 0.0, 0.0, c, f, 0.0]}
    else:
        matrix = [a, b, 0.0, c, d, e, 0.0, f, *[0.0] * 7, 1.0]
        place = {"ModelTransformation": matrix}
    if code is None:
        return place
    height, width = shape
    ends = [(column, row) for column in (0, width) for row in (0, height)]
    small = all(abs(a * x + b * y + c) <= 360 and abs(d * x + e * y + f) <= 90 for x, y in ends)
    geographic = 4000 <= code < 5000 or small
    kind = (MODEL_TYPE_KEY, 0, 1, 2 if geographic else PROJECTED)
    system = (GEOGRAPHIC_KEY if geographic else PROJECTED_KEY, 0, 1, code)
    keys = [1, 1, 0, 3, *kind, RASTER_TYPE_KEY, 0, 1, 1, *system]
    return {**place, "GeoKeyDirectory": keys}


def scaled_geo(geo: Geo, x: float, y: float) -> dict[str, Any]:
    """GeoTIFF tags of the raster with `x` times as many columns and `y` times as many rows.

    A corner at raster coordinate i moves to i * x. Where coordinates are centres (PixelIsPoint),
    the centre i is the corner i + 1/2, and so moves to (i + 1/2) * x - 1/2. Coordinates on the
    ground do not change.
    """
    half, scale = 0.5 if pixel_is_point(geo) else 0.0, np.array((x, y))
    out = dict(geo)
    if "ModelPixelScale" in geo:
        wide, high, *rest = geo["ModelPixelScale"]
        out["ModelPixelScale"] = [wide / x, high / y, *rest]
    if "ModelTiepoint" in geo:
        ties = np.array(geo["ModelTiepoint"], dtype=np.float64).reshape(-1, 6)
        ties[:, :2] = (ties[:, :2] + half) * scale - half
        out["ModelTiepoint"] = ties.ravel().tolist()
    if "RPCCoefficient" in geo:
        out["RPCCoefficient"] = _moved_rpc(geo["RPCCoefficient"], (x, y), (0.0, 0.0))
    if "ModelTransformation" in geo:
        back = np.diag([1 / x, 1 / y, 1.0, 1.0])
        back[:2, 3] = half / scale - half
        out["ModelTransformation"] = (
            (np.array(geo["ModelTransformation"], dtype=np.float64).reshape(4, 4) @ back)
            .ravel()
            .tolist()
        )
    return _tied_at_zero(out)


def cropped_geo(geo: Geo, x: int, y: int) -> dict[str, Any]:
    """GeoTIFF tags of a crop whose first pixel, where counting begins, is (column x, row y)."""
    out = dict(geo)
    if "RPCCoefficient" in geo:
        out["RPCCoefficient"] = _moved_rpc(geo["RPCCoefficient"], (1.0, 1.0), (x, y))
    if "ModelTiepoint" in geo:
        ties = np.array(geo["ModelTiepoint"], dtype=np.float64).reshape(-1, 6)
        ties[:, :2] -= (x, y)
        out["ModelTiepoint"] = ties.ravel().tolist()
    if "ModelTransformation" in geo:
        shift = np.eye(4)
        shift[:2, 3] = (x, y)
        out["ModelTransformation"] = (
            (np.array(geo["ModelTransformation"], dtype=np.float64).reshape(4, 4) @ shift)
            .ravel()
            .tolist()
        )
    return _tied_at_zero(out)


def _moved_rpc(
    rpc: Sequence[float], scale: tuple[float, float], start: tuple[float, float]
) -> list[float]:
    """Rational polynomial coefficients of a raster that was cropped at `start`, then enlarged.

    scale, start: by columns, then rows. Of the numbers, 2 and 3 are offsets of lines and samples,
    7 and 8 their scales, counted from the centre of the first pixel (RPC00B; tag 50844).
    """
    moved = [float(value) for value in rpc]
    if len(moved) >= 9:
        for at, axis in ((2, 1), (3, 0)):
            moved[at] = (moved[at] - start[axis] + 0.5) * scale[axis] - 0.5
            moved[at + 5] *= scale[axis]
    return moved


def _tied_at_zero(geo: dict[str, Any]) -> dict[str, Any]:
    """Tags whose single tie point, beside a pixel scale, stands at raster coordinate (0, 0).

    GDAL writes it there, and simple readers look at its ground coordinates alone.
    """
    if "ModelPixelScale" not in geo or len(geo.get("ModelTiepoint", ())) != 6:
        return geo
    width, height = geo["ModelPixelScale"][:2]
    column, row, level, x, y, z = geo["ModelTiepoint"]
    ground = [x - column * width, y + row * height, z]
    return {**geo, "ModelTiepoint": [0.0, 0.0, level, *ground]}
