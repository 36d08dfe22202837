"""Photo facts: what a file says about its picture beside the pixels, and how that changes when the
picture is enlarged.
"""

from __future__ import annotations

import base64
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from typing import IO, Any

import numpy as np
from PIL import Image

Geo = Mapping[str, Any]

PIXEL_IS_POINT = 2
RASTER_TYPE_KEY = 1025

# Tags of the first EXIF directory that speak of the picture. The others (offsets, sizes,
# compression, thumbnails) speak of the file.
KEPT_TAGS = (
    270,
    271,
    272,
    305,
    306,
    315,
    33432,
    36867,
    40091,
    40092,
    40093,
    40094,
    40095,
    18246,
    18249,
)
EXIF_DIRECTORY, GPS_DIRECTORY, ORIENTATION_TAG = 0x8769, 0x8825, 274
# PixelXDimension, PixelYDimension, interoperability pointer, maker note (holds absolute offsets):
# false after enlarging.
DROPPED_EXIF_TAGS = (0xA002, 0xA003, 0xA005, 0x927C)


@dataclass(frozen=True, slots=True)
class PhotoMetadata:
    """What a source says of its picture, kept with the output.

    icc: ICC colour profile of the pixels as they are handed out; None too when the colours were converted.
    exif: EXIF block that starts with a TIFF header; its orientation is 1, because pixels are handed out upright.
    xmp: XMP packet.
    resolution: pixels per `resolution_unit`, x then y.
    resolution_unit: "inch", "centimetre" or None.
    pixel_size: physical size of a pixel, y then x, in `pixel_unit`.
    pixel_unit: an OME-NGFF name of a unit, such as "micrometer".
    geo: GeoTIFF and GDAL tags by name (ModelPixelScale, ModelTiepoint, ModelTransformation, GeoKeyDirectory, GeoDoubleParams,
        GeoAsciiParams, GDAL_NODATA, GDAL_METADATA): lists of numbers, or text.
    channel_names, channel_colours: for each channel, or empty; colours as RRGGBB.
    nodata: value that marks pixels without data.
    """

    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    resolution: tuple[float, float] | None = None
    resolution_unit: str | None = None
    pixel_size: tuple[float, float] | None = None
    pixel_unit: str | None = None
    geo: Geo | None = None
    channel_names: tuple[str, ...] = ()
    channel_colours: tuple[str, ...] = ()
    nodata: float | None = None

    def scaled(self, scale: Fraction) -> PhotoMetadata:
        """The facts of the picture enlarged by `scale`: it covers the same ground, so lengths in
        pixels grow and pixels shrink.
        """
        s = float(scale)
        return replace(
            self,
            resolution=(
                None
                if self.resolution is None
                else (self.resolution[0] * s, self.resolution[1] * s)
            ),
            pixel_size=(
                None
                if self.pixel_size is None
                else (self.pixel_size[0] / s, self.pixel_size[1] / s)
            ),
            geo=None if self.geo is None else scaled_geo(self.geo, s),
        )

    def cropped(self, x: int, y: int) -> PhotoMetadata:
        """The facts of a crop whose first pixel is column `x`, row `y`."""
        return self if self.geo is None else replace(self, geo=cropped_geo(self.geo, x, y))

    def turned(self) -> PhotoMetadata:
        """The facts after x and y changed places."""
        return replace(
            self,
            resolution=None if self.resolution is None else self.resolution[::-1],
            pixel_size=None if self.pixel_size is None else self.pixel_size[::-1],
        )

    def to_json(self) -> dict[str, Any]:
        """A dictionary that JSON can hold; bytes as base64, numbers that JSON lacks (NaN) as
        text.
        """
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def from_json(cls, d: Mapping[str, Any]) -> PhotoMetadata:
        """The inverse of `to_json`; keys that are absent take their defaults."""
        known = {
            field.name: d[field.name] for field in fields(cls) if d.get(field.name) is not None
        }
        for name in ("icc", "exif", "xmp"):
            if name in known:
                known[name] = base64.b64decode(known[name])
        for name in ("resolution", "pixel_size", "channel_names", "channel_colours"):
            if name in known:
                known[name] = tuple(known[name])
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


def pixel_is_point(geo: Geo) -> bool:
    """Whether whole raster coordinates are centres of pixels (GTRasterTypeGeoKey 2) and not their
    corners.
    """
    keys = geo.get("GeoKeyDirectory") or []
    return any(
        keys[i] == RASTER_TYPE_KEY and keys[i + 3] == PIXEL_IS_POINT
        for i in range(4, len(keys) - 3, 4)
    )


def scaled_geo(geo: Geo, scale: float) -> dict[str, Any]:
    """GeoTIFF tags of the raster enlarged by `scale`.

    A corner at raster coordinate i moves to i * scale. Where coordinates are centres
    (PixelIsPoint), the centre i is the corner i + 1/2, and so moves to (i + 1/2) * scale - 1/2.
    What a place on the ground is called does not change.
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
    """GeoTIFF tags of a crop whose first pixel is column `x`, row `y`: raster coordinates are
    counted from there.
    """
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


def clean_exif(exif: Image.Exif) -> tuple[bytes | None, int]:
    """The part of an EXIF block that stays true after enlarging (None if nothing is left), and the
    orientation it states, 1 to 8.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        orientation = exif.get(ORIENTATION_TAG, 1)
        orientation = orientation if orientation in range(1, 9) else 1
        clean = Image.Exif()
        for tag in KEPT_TAGS:
            if tag in exif:
                clean[tag] = exif[tag]
        for directory in (EXIF_DIRECTORY, GPS_DIRECTORY):
            held = {k: v for k, v in exif.get_ifd(directory).items() if k not in DROPPED_EXIF_TAGS}
            if held:
                clean.get_ifd(directory).update(held)
                clean[directory] = clean.get_ifd(directory)
        if not len(clean):
            return None, orientation
        clean[ORIENTATION_TAG] = 1
        return clean.tobytes().removeprefix(b"Exif\0\0"), orientation


def exif_of(block: bytes) -> Image.Exif:
    """An EXIF block, with or without its "Exif" mark, opened."""
    exif = Image.Exif()
    exif.load(block if block.startswith(b"Exif\0\0") else b"Exif\0\0" + block)
    return exif


def tiff_exif(file: IO[bytes], offset: int, order: str, big: bool) -> Image.Exif:
    """The tags of the TIFF directory at byte `offset`, opened as EXIF; order: "<" or ">", big:
    BigTIFF. Read while `file` is open.
    """
    exif = Image.Exif()
    exif.endian, exif.bigtiff = order, big
    exif.load_from_fp(file, offset)
    return exif


def upright_xmp(xmp: bytes | None) -> bytes | None:
    """An XMP packet whose tiff:Orientation says 1, because pixels are handed out upright."""
    if not xmp:
        return None
    return re.sub(rb"(tiff:Orientation\s*(?:=\s*[\"']|>\s*))[1-8]", rb"\g<1>1", xmp)
