"""What a file says about its picture beside the pixels, and how that changes by enlarging."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from tierscale.pipeline.formats.georeference import Geo, cropped_geo, scaled_geo


class Position(NamedTuple):
    """Where a plane lies on an axis that the image does not have: z, or t.

    number: of the plane. at: its place in `unit`, a name of OME-NGFF, or None.
    """

    axis: str
    number: int
    at: float
    unit: str | None


@dataclass(frozen=True, slots=True)
class PhotoMetadata:
    """What a source says of its picture; kept with the output.

    icc: ICC colour profile of the pixels as they are read; None too where colours were converted.
    srgb: whether the file says without a profile that its colours are sRGB.
    exif: EXIF block that starts with a TIFF header; its orientation is 1, because pixels are read
        upright.
    xmp: XMP packet. iptc: IPTC-IIM datasets.
    resolution: pixels per `resolution_unit`, x then y.
    resolution_unit: "inch", "centimetre"; None: only the ratio of the two is known, which tells how
        oblong a pixel is.
    pixel_size: physical size of a pixel, y then x, in `pixel_unit`.
    pixel_unit: an OME-NGFF name of a unit, such as "micrometer"; None: it is not known.
    origin: where the centre of the first pixel lies, y then x, in `pixel_unit`, or in pixels of the
        source where there is none; None: at zero.
    plane: where the image lies on axes of the source that it does not have.
    geo: GeoTIFF and GDAL tags by name (ModelPixelScale, ModelTiepoint, ModelTransformation,
        GeoKeyDirectory, GeoDoubleParams, GeoAsciiParams, GDAL_NODATA, GDAL_METADATA).
    channel_names, channel_colours: for each channel, or empty; colours as RRGGBB.
    channel_windows: values that are shown as black and white, for each channel, or empty.
    nodata: value that marks pixels without data.
    bits: significant bits of a sample where these are fewer than its type has.
    masked: whether alpha tells only which pixels are valid: the mask of a map.
    """

    icc: bytes | None = None
    srgb: bool = False
    exif: bytes | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None
    resolution: tuple[float, float] | None = None
    resolution_unit: str | None = None
    pixel_size: tuple[float, float] | None = None
    pixel_unit: str | None = None
    origin: tuple[float, float] | None = None
    plane: tuple[Position, ...] = ()
    geo: Geo | None = None
    channel_names: tuple[str, ...] = ()
    channel_colours: tuple[str, ...] = ()
    channel_windows: tuple[tuple[float, float], ...] = ()
    nodata: float | None = None
    bits: int | None = None
    masked: bool = False

    def scaled(self, scale: Fraction) -> PhotoMetadata:
        """The metadata of the picture enlarged by `scale`.

        It covers the same ground, so lengths in pixels grow and pixels shrink, and the centre of
        the first one moves towards the corner, which stays.
        """
        s = float(scale)
        density, size = self.resolution, self.pixel_size
        shift = (1 / s - 1) / 2
        return replace(
            self,
            resolution=None if density is None else (density[0] * s, density[1] * s),
            pixel_size=None if size is None else (size[0] / s, size[1] / s),
            origin=self._moved(shift, shift),
            geo=None if self.geo is None else scaled_geo(self.geo, s, s),
        )

    def reduced(self, x: float, y: float) -> PhotoMetadata:
        """The metadata of a pyramid level whose pixels are `x` times as wide and `y` as high."""
        if x == y == 1:
            return self
        density, size, origin = self.resolution, self.pixel_size, self.origin
        if size is not None or origin is not None:
            ours = self._moved((y - 1) / 2, (x - 1) / 2)
            origin = ours if size is not None else (ours[0] / y, ours[1] / x)
        return replace(
            self,
            resolution=None if density is None else (density[0] / x, density[1] / y),
            pixel_size=None if size is None else (size[0] * y, size[1] * x),
            origin=origin,
            geo=None if self.geo is None else scaled_geo(self.geo, 1 / x, 1 / y),
        )

    def cropped(self, x: int, y: int) -> PhotoMetadata:
        """The metadata of a crop whose first pixel is column `x`, row `y`."""
        geo = None if self.geo is None else cropped_geo(self.geo, x, y)
        return replace(self, geo=geo, origin=self._moved(y, x))

    def _moved(self, y: float, x: float) -> tuple[float, float]:
        """The origin after it moved by `y` and `x` pixels."""
        origin, size = self.origin or (0.0, 0.0), self.pixel_size or (1.0, 1.0)
        return origin[0] + y * size[0], origin[1] + x * size[1]

    def transposed(self) -> PhotoMetadata:
        """The metadata after x and y changed places."""
        density, size, origin = self.resolution, self.pixel_size, self.origin
        return replace(
            self,
            resolution=None if density is None else density[::-1],
            pixel_size=None if size is None else size[::-1],
            origin=None if origin is None else origin[::-1],
        )

    def to_json(self) -> dict[str, Any]:
        """A dictionary that JSON can hold: bytes as base64, numbers that it lacks (NaN) as text."""
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def from_json(cls, d: Mapping[str, Any]) -> PhotoMetadata:
        """The inverse of `to_json`; missing keys take their defaults."""
        known = {
            field.name: d[field.name] for field in fields(cls) if d.get(field.name) is not None
        }
        for name in ("icc", "exif", "xmp", "iptc"):
            if name in known:
                known[name] = base64.b64decode(known[name])
        for name in ("resolution", "pixel_size", "origin", "channel_names", "channel_colours"):
            if name in known:
                known[name] = tuple(known[name])
        known["channel_windows"] = tuple(
            (float(low), float(high)) for low, high in known.get("channel_windows", ())
        )
        known["plane"] = tuple(Position(*one) for one in known.get("plane", ()))
        if "nodata" in known:
            known["nodata"] = float(known["nodata"])
        return cls(**known)


def _plain(value: Any) -> Any:
    """`value` in the types of JSON."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, float):
        return value if np.isfinite(value) else str(value)
    if isinstance(value, tuple):
        return list(value)
    return dict(value) if isinstance(value, Mapping) else value
