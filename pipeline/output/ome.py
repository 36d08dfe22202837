"""OME-NGFF 0.5 metadata of an output: where its levels lie in space, and how channels are shown."""

from fractions import Fraction
from typing import Any

import numpy as np

from tierscale.pipeline.formats.metadata import PhotoMetadata
from tierscale.pipeline.output.levels import StoreLayout

COLOURS = {
    "rgb": ("FF0000", "00FF00", "0000FF"),
    "rgba": ("FF0000", "00FF00", "0000FF", "FFFFFF"),
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


def ome_attributes(
    name: str,
    layout: StoreLayout,
    metadata: PhotoMetadata,
    scale: Fraction,
    window: tuple[float, float],
) -> dict[str, Any]:
    """Attributes of the group: multiscales with half-pixel translations, and display colours.

    metadata: of the source. Where it states no physical pixel size, lengths are in source pixels.
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


def _multiscale(
    name: str, layout: StoreLayout, metadata: PhotoMetadata, scale: Fraction
) -> dict[str, Any]:
    """Axes, and scale and translation of every level."""
    size, unit = metadata.pixel_size or (1.0, 1.0), metadata.pixel_unit
    factor = scale.denominator / scale.numerator
    datasets = []
    for level in range(len(layout.levels)):
        step = [length * factor * 2**level for length in size]
        # The centre of the first pixel moves by half a pixel of full resolution with each halving.
        shift = [length * factor * (2**level - 1) / 2 for length in size]
        datasets.append(
            {
                "path": str(level),
                "coordinateTransformations": [
                    {"type": "scale", "scale": [1.0, *step]},
                    {"type": "translation", "translation": [0.0, *shift]},
                ],
            }
        )
    space = [
        {"name": axis, "type": "space", **({"unit": unit} if unit else {})} for axis in ("y", "x")
    ]
    return {
        "name": name,
        "axes": [{"name": "c", "type": "channel"}, *space],
        "datasets": datasets,
        "type": "mean",
    }


def _omero(
    layout: StoreLayout, metadata: PhotoMetadata, window: tuple[float, float]
) -> dict[str, Any]:
    """Names, colours and value windows of the channels, for viewers."""
    channels, colour, dtype = layout.shape[0], layout.colour, layout.dtype
    colours = (
        metadata.channel_colours
        or COLOURS.get(colour)
        or tuple(MICROSCOPE_COLOURS[c % len(MICROSCOPE_COLOURS)] for c in range(channels))
    )
    names = (
        metadata.channel_names
        or CHANNEL_NAMES.get(colour)
        or tuple(f"channel {c}" for c in range(channels))
    )
    low, high = window
    bottom, top = (0.0, float(np.iinfo(dtype).max)) if dtype.kind in "ui" else (low, high)
    entries = [
        {
            "active": not (colour in ("rgba", "greya") and channel == channels - 1),
            "color": colours[channel] if channel < len(colours) else "FFFFFF",
            "label": names[channel] if channel < len(names) else f"channel {channel}",
            "window": {"min": bottom, "max": top, "start": low, "end": high},
        }
        for channel in range(channels)
    ]
    return {"channels": entries, "rdefs": {"model": "greyscale" if colour == "grey" else "color"}}
