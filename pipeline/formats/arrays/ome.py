"""Images in OME-Zarr groups, versions 0.4 and 0.5, and in the layout of bioformats2raw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tierscale.pipeline.errors import Damaged, Refused
from tierscale.pipeline.formats.metadata import PhotoMetadata
from tierscale.pipeline.formats.source import Samples
from tierscale.pipeline.plan.options import Selection

RGB_COLOURS = ("FF0000", "00FF00", "0000FF")
NAMED_COLOURS: dict[tuple[str, ...], Samples] = {
    ("red", "green", "blue"): Samples("rgb"),
    ("red", "green", "blue", "alpha"): Samples("rgba", "straight"),
}
# Names of channels that converters write when they know none.
GENERIC_NAMES = frozenset(
    ("", *"rgb", *"012", "red", "green", "blue", "channel 0", "channel 1", "channel 2")
)


@dataclass(frozen=True, slots=True)
class ZarrImage:
    """A zarr array and what its attributes say: letters of axes, metadata, channels, choices."""

    array: Any
    axes: str
    metadata: PhotoMetadata
    samples: Samples
    notes: tuple[str, ...]


def image_in_group(group: Any, uri: str, selection: Selection) -> ZarrImage:
    """The selected image and level of an OME-Zarr group.

    Refused: it has no such image. Damaged: its metadata do not fit its arrays.
    """
    notes: list[str] = []
    attributes = ome_attributes(group)
    if "plate" in attributes:
        raise plate_refusal(group, attributes["plate"], uri)
    if "image-label" in attributes:
        raise Refused(
            f"{uri}: this is a label image, and enlarging it would make up labels; name the image"
            " that the labels belong to"
        )
    if "multiscales" not in attributes:
        group, attributes = series_group(group, uri, selection, notes)
    elif selection.series:
        raise Refused(
            f"{uri}: there is no image {selection.series}; the file holds one, leave out --series"
        )
    scales = attributes["multiscales"][0]
    dataset = chosen_level(scales["datasets"], uri, selection, notes)
    array = group[dataset["path"]]
    listed = scales.get("axes") or "tczyx"[-array.ndim :]
    axes = axes_letters(listed)
    if len(axes) != array.ndim or len(set(axes)) != len(axes) or not {"y", "x"} <= set(axes):
        raise Damaged(
            f"{uri}: its metadata name axes {axes} for an array of shape {array.shape}; correct the"
            " metadata"
        )
    channels = dict(zip(axes, array.shape, strict=True)).get("c", 1)
    y = listed[axes.index("y")]
    unit = y.get("unit") if isinstance(y, Mapping) else None
    metadata = ome_metadata(attributes, pixel_size(scales, dataset, axes), unit)
    samples = ome_samples(metadata, array.dtype, channels)
    return ZarrImage(array, axes, metadata, samples, tuple(notes))


def plate_refusal(group: Any, plate: Any, uri: str) -> Refused:
    """Why a plate is not enlarged, naming the first image that it lists and has."""
    paths = [str(well["path"]) for well in plate.get("wells", ()) if "path" in well]
    well = next((path for path in paths if path in group), None)
    if well is None:
        return Refused(f"{uri}: this is a plate of many images, none of which is there")
    images = ome_attributes(group[well]).get("well", {}).get("images") or [{"path": "0"}]
    example = f"{uri.rstrip('/')}/{well}/{images[0]['path']}"
    return Refused(f"{uri}: this is a plate of many images; name one of them, such as {example}")


def chosen_level(
    datasets: Sequence[Mapping[str, Any]], uri: str, selection: Selection, notes: list[str]
) -> Mapping[str, Any]:
    """The pyramid level that is selected; appends to `notes`. Refused: there is none."""
    if not 0 <= selection.level < len(datasets):
        raise Refused(
            f"{uri}: there is no pyramid level {selection.level}; --level goes from 0 to"
            f" {len(datasets) - 1}"
        )
    if selection.level:
        notes.append(f"took pyramid level {selection.level} of {len(datasets)}")
    return datasets[selection.level]


def axes_letters(listed: Sequence[Any]) -> str:
    """One letter for each axis of version 0.4 and later (mappings) or 0.3 (names)."""
    names = (axis["name"] if isinstance(axis, Mapping) else axis for axis in listed)
    return "".join(name[0].lower() for name in names)


def ome_attributes(group: Any) -> dict[str, Any]:
    """OME metadata of a group, which 0.5 keeps under "ome" and 0.4 at the top."""
    attributes = dict(group.attrs)
    nested = attributes.get("ome")
    return {**attributes, **nested} if isinstance(nested, Mapping) else attributes


def series_group(
    group: Any, uri: str, selection: Selection, notes: list[str]
) -> tuple[Any, dict[str, Any]]:
    """The image group of the bioformats2raw layout: subgroups "0", "1", ..."""
    names = sorted((name for name in group.group_keys() if name.isdigit()), key=int)
    if not names:
        arrays = sorted(group.array_keys())
        hint = (
            f"name one of its arrays: {', '.join(arrays[:5])}" if arrays else "it holds no arrays"
        )
        raise Refused(f"{uri}: this zarr group is not an OME-Zarr image; {hint}")
    number = selection.series or 0
    if str(number) not in names:
        raise Refused(
            f"{uri}: there is no image {number}; --series goes from {names[0]} to {names[-1]}"
        )
    if len(names) > 1:
        notes.append(f"took image {number} of {len(names)} in the file (--series chooses)")
    inner = group[str(number)]
    attributes = ome_attributes(inner)
    if "multiscales" not in attributes:
        raise Damaged(
            f"{uri}: image {number} has no multiscales metadata; the file is incomplete, fetch it"
            " again"
        )
    return inner, attributes


def pixel_size(
    scales: Mapping[str, Any], dataset: Mapping[str, Any], axes: str
) -> tuple[float, float]:
    """Size of a pixel, y then x: the product of the scales of a level and of its image."""
    factors = [1.0] * len(axes)
    for holder in (dataset, scales):
        for transform in holder.get("coordinateTransformations", ()):
            if transform.get("type") == "scale" and len(transform.get("scale", ())) == len(axes):
                factors = [a * float(b) for a, b in zip(factors, transform["scale"], strict=True)]
    return factors[axes.index("y")], factors[axes.index("x")]


def ome_metadata(
    attributes: Mapping[str, Any], size: tuple[float, float], unit: str | None
) -> PhotoMetadata:
    """Pixel size, where it has a unit, and names and colours of channels."""
    channels = (attributes.get("omero") or {}).get("channels", ())
    colours = tuple(str(channel.get("color", "")).upper() for channel in channels)
    names = tuple(str(channel.get("label", "")) for channel in channels)
    return PhotoMetadata(
        pixel_size=size if unit else None,
        pixel_unit=unit,
        channel_names=names if any(names) else (),
        channel_colours=colours if all(colours) else (),
    )


def ome_samples(metadata: PhotoMetadata, dtype: np.dtype, channels: int) -> Samples:
    """What the channels of an OME-Zarr image are.

    OME-Zarr cannot say "RGB": converters of slides write three channels coloured pure red, green
    and blue without names of dyes, tierscale names them by their colours, and only such a triple is
    read as RGB. Everything else is greys.
    """
    if channels == 1:
        return Samples("grey")
    names = tuple(name.lower() for name in metadata.channel_names)
    coloured = metadata.channel_colours[:3] == RGB_COLOURS
    if coloured and names in NAMED_COLOURS:
        return NAMED_COLOURS[names]
    if channels == 2 and names == ("grey", "alpha"):
        return Samples("greya", "straight")
    photo = channels == 3 and dtype in (np.uint8, np.uint16)
    return Samples("rgb" if photo and coloured and set(names) <= GENERIC_NAMES else "channels")
