"""OME-NGFF 0.5 metadata of an output: where its levels lie in space, and the colours of its
channels.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from tierscale.pipeline.formats.metadata import PhotoMetadata
from tierscale.pipeline.output.store import level_sizes

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
    shape: Sequence[int],
    dtype: np.dtype,
    colour: str,
    facts: PhotoMetadata,
    scale: Fraction,
    window: tuple[float, float],
) -> dict[str, Any]:
    """OME-NGFF 0.5 metadata: multiscales with half-pixel translations, and display colours.

    facts: of the source. Where it states no physical pixel, lengths are in pixels of the source.
    """
    size, unit = facts.pixel_size or (1.0, 1.0), facts.pixel_unit
    factor = scale.denominator / scale.numerator
    levels = []
    for level in range(len(level_sizes((shape[1], shape[2])))):
        step = [length * factor * 2**level for length in size]
        shift = [length * factor * (2**level - 1) / 2 for length in size]
        levels.append(
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
    multiscale = {
        "name": name,
        "axes": [{"name": "c", "type": "channel"}, *space],
        "datasets": levels,
        "type": "mean",
    }
    return {
        "ome": {
            "version": "0.5",
            "multiscales": [multiscale],
            "omero": _omero(shape[0], dtype, colour, facts, window),
        }
    }


def _omero(
    channels: int, dtype: np.dtype, colour: str, facts: PhotoMetadata, window: tuple[float, float]
) -> dict[str, Any]:
    colours = (
        facts.channel_colours
        or COLOURS.get(colour)
        or tuple(MICROSCOPE_COLOURS[c % len(MICROSCOPE_COLOURS)] for c in range(channels))
    )
    names = (
        facts.channel_names
        or CHANNEL_NAMES.get(colour)
        or tuple(f"channel {c}" for c in range(channels))
    )
    low, high = window
    bottom, top = (0.0, float(np.iinfo(dtype).max)) if dtype.kind in "ui" else (low, high)
    entries = []
    for channel in range(channels):
        entries.append(
            {
                "active": not (colour in ("rgba", "greya") and channel == channels - 1),
                "color": colours[channel] if channel < len(colours) else "FFFFFF",
                "label": names[channel] if channel < len(names) else f"channel {channel}",
                "window": {"min": bottom, "max": top, "start": low, "end": high},
            }
        )
    return {"channels": entries, "rdefs": {"model": "greyscale" if colour == "grey" else "color"}}
