"""OME-NGFF 0.5 metadata of an output: where its levels lie in space, and how channels are shown."""

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from tierscale.pipeline.formats.georeference import (
    band_names,
    crs_code,
    geo_transform,
    ground_pixel,
)
from tierscale.pipeline.formats.metadata import PhotoMetadata
from tierscale.pipeline.output.levels import StoreLayout
from tierscale.pipeline.output.store import VALID
from tierscale.pipeline.plan.plan import Plan

RGB_COLOURS = ("FF0000", "00FF00", "0000FF")
COLOURS = {
    "rgb": RGB_COLOURS,
    "rgba": (*RGB_COLOURS, "FFFFFF"),
    "grey": ("FFFFFF",),
    "greya": ("FFFFFF", "FFFFFF"),
}
CHANNEL_NAMES = {
    "rgb": ("red", "green", "blue"),
    "rgba": ("red", "green", "blue", "alpha"),
    "grey": ("grey",),
    "greya": ("grey", "alpha"),
}
MICROSCOPE_COLOURS = ("0000FF", "00FF00", "FF0000", "00FFFF", "FF00FF", "FFFF00", "FFFFFF")
# Conventions for places on the ground in zarr; https://github.com/zarr-conventions.
CONVENTIONS = {
    "proj:": (
        "f17cb550-5864-4468-aeb7-f3180cfb622f",
        "https://github.com/zarr-conventions/geo-proj/blob/v1/README.md",
    ),
    "spatial:": (
        "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4",
        "https://github.com/zarr-conventions/spatial/blob/v1/README.md",
    ),
}


def ome_attributes(
    name: str,
    layout: StoreLayout,
    metadata: PhotoMetadata,
    scale: Fraction,
    window: tuple[float, float],
) -> dict[str, Any]:
    """Attributes of the group: multiscales with half-pixel translations, and display colours.

    metadata: of the output. Where it states no physical pixel size, lengths are in source pixels.
    window: values that are shown as black and white. Source: OME-NGFF 0.5, sections "multiscales"
    and "omero".
    """
    return {
        "ome": {
            "version": "0.5",
            "multiscales": [_multiscale(name, layout, metadata, scale)],
            "omero": _omero(layout, metadata, window),
        }
    }


def own_attributes(plan: Plan, metadata: PhotoMetadata) -> dict[str, Any]:
    """Attributes of the group that tierscale reads back, also where the zarr lies alone.

    metadata: of the output.
    """
    return {
        "tierscale": {
            "plan": plan.digest,
            "pyramid": VALID,
            "colour": plan.colour,
            "alpha": plan.alpha,
            "facts": metadata.to_json(),
        }
    }


def pixel_space(
    metadata: PhotoMetadata, scale: Fraction
) -> tuple[tuple[float, float], tuple[float, float], str | None]:
    """Size of a pixel of an output, centre of its first one (both y then x), and their unit.

    Without a physical size the lengths are pixels of the source, or metres on a projected map,
    counted from the corner of the source: there y grows towards the south.
    """
    origin = metadata.origin or (0.0, 0.0)
    if metadata.pixel_size is not None:
        return metadata.pixel_size, origin, metadata.pixel_unit
    step = scale.denominator / scale.numerator
    ground = None if metadata.geo is None else ground_pixel(metadata.geo)
    if ground is None:
        return (step, step), origin, None
    return ground, (origin[0] / step * ground[0], origin[1] / step * ground[1]), "meter"


def _multiscale(
    name: str, layout: StoreLayout, metadata: PhotoMetadata, scale: Fraction
) -> dict[str, Any]:
    """Axes, and scale and translation of every level."""
    size, origin, unit = pixel_space(metadata, scale)
    datasets = []
    for level in range(len(layout.levels)):
        step = [length * 2**level for length in size]
        # The centre of the first pixel moves by half a pixel of full resolution with each halving.
        centre = [at + length * (2**level - 1) / 2 for at, length in zip(origin, size, strict=True)]
        datasets.append(
            {
                "path": str(level),
                "coordinateTransformations": [
                    {"type": "scale", "scale": [1.0, *step]},
                    {"type": "translation", "translation": [0.0, *centre]},
                ],
            }
        )
    return {"name": name, "axes": axes(unit), "datasets": datasets, "type": "mean"}


def axes(unit: str | None) -> list[dict[str, str]]:
    """The axes c, y, x. unit: of the last two, or None."""
    space = [
        {"name": axis, "type": "space", **({"unit": unit} if unit else {})} for axis in ("y", "x")
    ]
    return [{"name": "c", "type": "channel"}, *space]


def _omero(
    layout: StoreLayout, metadata: PhotoMetadata, window: tuple[float, float]
) -> dict[str, Any]:
    """Names, colours and value windows of the channels, for viewers."""
    channels, colour = layout.shape[0], layout.colour
    colours, names = channel_colours(layout, metadata), channel_names(layout, metadata)
    entries = [
        {
            "active": not (colour in ("rgba", "greya") and channel == channels - 1),
            "color": colours[channel] if channel < len(colours) else "FFFFFF",
            "label": names[channel] if channel < len(names) else f"channel {channel}",
            "window": _window(channel, layout.dtype, metadata, window),
        }
        for channel in range(channels)
    ]
    model = "greyscale" if colour == "grey" else "color"
    return {"channels": entries, "rdefs": {"defaultT": 0, "defaultZ": 0, "model": model}}


def _window(
    channel: int, dtype: np.dtype, metadata: PhotoMetadata, window: tuple[float, float]
) -> dict[str, float]:
    """The values that a channel can have, and those that are shown as black and white.

    window: these, where the source gives the channel none.
    """
    windows = metadata.channel_windows
    low, high = windows[channel] if channel < len(windows) else window
    bottom, top = window
    if dtype.kind in "ui":
        bits = metadata.bits if metadata.bits and dtype.kind == "u" else 0
        bottom, top = 0.0, float(2**bits - 1 if bits else np.iinfo(dtype).max)
        low, high = min(max(low, bottom), top), min(max(high, bottom), top)
    return {"min": bottom, "max": top, "start": low, "end": high}


def channel_colours(layout: StoreLayout, metadata: PhotoMetadata) -> tuple[str, ...]:
    """Colours in which channels are shown, RRGGBB: as the source says, else as their kind has.

    Three channels of 8 bits without names are most often the colours of a photo.
    """
    channels = layout.shape[0]
    plain = layout.colour == "channels" and channels == 3 and layout.dtype == np.uint8
    return (
        metadata.channel_colours
        or COLOURS.get(layout.colour)
        or (RGB_COLOURS if plain and not metadata.channel_names else ())
        or tuple(MICROSCOPE_COLOURS[c % len(MICROSCOPE_COLOURS)] for c in range(channels))
    )


def channel_names(layout: StoreLayout, metadata: PhotoMetadata) -> tuple[str, ...]:
    """Names of channels: as the source says, of the channels or of the bands of its raster."""
    channels = layout.shape[0]
    bands = band_names(metadata.geo, channels) if metadata.geo else ()
    return (
        metadata.channel_names
        or bands
        or CHANNEL_NAMES.get(layout.colour)
        or tuple(f"channel {c}" for c in range(channels))
    )


def level_attributes(layout: StoreLayout, metadata: PhotoMetadata) -> list[dict[str, Any]]:
    """Attributes of the array of every level: its place on the ground, where that is known.

    metadata: of the output. Source: zarr conventions "proj" and "spatial", which GDAL reads.
    """
    code = crs_code(metadata.geo) if metadata.geo else None
    transform = geo_transform(metadata.geo) if metadata.geo else None
    known = {"proj:": code is not None, "spatial:": transform is not None}
    marks = [
        {"uuid": uuid, "name": name, "spec_url": url}
        for name, (uuid, url) in CONVENTIONS.items()
        if known[name]
    ]
    found: list[dict[str, Any]] = []
    for level, (height, width) in enumerate(layout.levels):
        attributes: dict[str, Any] = {"zarr_conventions": marks} if marks else {}
        if code is not None:
            attributes["proj:code"] = code
        if transform is not None:
            a, b, c, d, e, f = transform
            grown = 2.0**level
            attributes["spatial:dimensions"] = ["y", "x"]
            attributes["spatial:transform"] = [a * grown, b * grown, c, d * grown, e * grown, f]
            attributes["spatial:shape"] = [height, width]
        found.append(attributes)
    return found


def shown_colours(attributes: Mapping[str, Any]) -> tuple[str, ...]:
    """The colours in the attributes of an output's group; empty: there are none."""
    channels = (attributes.get("ome", {}).get("omero") or {}).get("channels", ())
    return tuple(str(channel.get("color", "FFFFFF")) for channel in channels)
