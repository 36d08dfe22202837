"""GeoTIFF tags of rasters that are enlarged or cropped: no place on the ground moves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

# GeoTIFF and GDAL tags by name: lists of numbers, or text.
Geo = Mapping[str, Any]

PIXEL_IS_POINT = 2
RASTER_TYPE_KEY = 1025


def pixel_is_point(geo: Geo) -> bool:
    """Whether raster coordinates are centres of pixels, not corners (GTRasterTypeGeoKey 2)."""
    keys = geo.get("GeoKeyDirectory") or []
    return any(
        keys[i] == RASTER_TYPE_KEY and keys[i + 3] == PIXEL_IS_POINT
        for i in range(4, len(keys) - 3, 4)
    )


def scaled_geo(geo: Geo, scale: float) -> dict[str, Any]:
    """GeoTIFF tags of the raster enlarged by `scale`.

    A corner at raster coordinate i moves to i * scale. Where coordinates are centres
    (PixelIsPoint), the centre i is the corner i + 1/2, and so moves to (i + 1/2) * scale - 1/2.
    Coordinates on the ground do not change.
    """
    half = 0.5 if pixel_is_point(geo) else 0.0
    out = dict(geo)
    if "ModelPixelScale" in geo:
        x, y, *rest = geo["ModelPixelScale"]
        out["ModelPixelScale"] = [x / scale, y / scale, *rest]
    if "ModelTiepoint" in geo:
        ties = np.array(geo["ModelTiepoint"], dtype=np.float64).reshape(-1, 6)
        ties[:, :2] = (ties[:, :2] + half) * scale - half
        out["ModelTiepoint"] = ties.ravel().tolist()
    if "ModelTransformation" in geo:
        back = np.diag([1 / scale, 1 / scale, 1.0, 1.0])
        back[:2, 3] = half / scale - half
        out["ModelTransformation"] = (
            (np.array(geo["ModelTransformation"], dtype=np.float64).reshape(4, 4) @ back)
            .ravel()
            .tolist()
        )
    return out


def cropped_geo(geo: Geo, x: int, y: int) -> dict[str, Any]:
    """GeoTIFF tags of a crop whose first pixel, where counting begins, is (column x, row y)."""
    out = dict(geo)
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
    return out
