"""Images in OME-Zarr groups, versions 0.4 and 0.5, and in the layout of bioformats2raw."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import zarr

from tierscale.pipeline.errors import Damaged, Refused
from tierscale.pipeline.formats.arrays.ome_space import placed, placement, plane_of
from tierscale.pipeline.formats.arrays.stated import (
    OURS,
    merged,
    own_metadata,
    stated_geo,
    stated_nodata,
    unread_place,
)
from tierscale.pipeline.formats.metadata import PhotoMetadata
from tierscale.pipeline.formats.source import Samples
from tierscale.pipeline.plan.options import Selection
from tierscale.pipeline.storage.paths import place

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
    """A zarr array and what its attributes say: letters of axes, metadata, channels, choices.

    at: the selected index on each axis that is not c, y, x.
    """

    array: Any
    axes: str
    at: Mapping[str, int]
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
    if "multiscales" not in attributes:
        group, attributes = series_group(group, uri, selection, notes)
    elif selection.series:
        raise Refused(
            f"{uri}: there is no image {selection.series}; the file holds one, leave out --series"
        )
    if "image-label" in attributes:
        raise Refused(
            f"{uri}: this is a label image, and enlarging it would make up labels; name the image"
            " that the labels belong to"
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
    at = chosen_planes(axes, array.shape, selection, uri, notes)
    space = placement(scales, dataset, listed, axes)
    metadata = shown_as(channel_metadata(attributes), channels, notes)
    metadata = replace(placed(metadata, space), plane=plane_of(space, at))
    own = own_metadata(attributes, selection.level, uri)
    if own is None:
        metadata = on_ground(metadata, array, axes, notes)
    samples = ome_samples(metadata, array.dtype, channels)
    if own is not None:
        metadata = merged(own, metadata)
        samples = own_samples(samples, attributes, own)
    return ZarrImage(array, axes, at, metadata, samples, tuple(notes))


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


def chosen_planes(
    axes: str, shape: Sequence[int], selection: Selection, uri: str, notes: list[str]
) -> dict[str, int]:
    """The index on each axis that is not c, y, x; appends to `notes`. Refused: no such plane."""
    at: dict[str, int] = {}
    for axis in "zt":
        if getattr(selection, axis) and axis not in axes:
            raise Refused(
                f"{uri}: --{axis} {getattr(selection, axis)} was given, but the image has no"
                " such axis; leave it out"
            )
    for axis, size in zip(axes, shape, strict=True):
        if axis in "cyx":
            continue
        wanted = (getattr(selection, axis) if axis in "zt" else None) or 0
        if not 0 <= wanted < size:
            raise Refused(f"{uri}: there is no {axis}={wanted}; --{axis} goes from 0 to {size - 1}")
        if size > 1:
            notes.append(
                f"took plane {axis}={wanted} of {size}"
                + (f" (--{axis} chooses)" if axis in "zt" else "")
            )
        at[axis] = wanted
    return at


def ome_attributes(group: Any) -> dict[str, Any]:
    """OME metadata of a group, which 0.5 keeps under "ome" and 0.4 at the top."""
    attributes = dict(group.attrs)
    nested = attributes.get("ome")
    return {**attributes, **nested} if isinstance(nested, Mapping) else attributes


def series_group(
    group: Any, uri: str, selection: Selection, notes: list[str]
) -> tuple[Any, dict[str, Any]]:
    """The image group of the bioformats2raw layout: subgroups "0", "1", ..."""
    listed = sorted(entry.name for entry in place(uri).iterdir())
    numbers = sorted((name for name in listed if name.isdigit()), key=int)
    names = [name for name in numbers if isinstance(member(group, name), zarr.Group)]
    if not names:
        found = (name for name in listed if isinstance(member(group, name), zarr.Array))
        arrays = ", ".join(itertools.islice(found, 5))
        hint = f"name one of its arrays: {arrays}" if arrays else "it holds no arrays"
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


def member(group: zarr.Group, name: str) -> zarr.Group | zarr.Array | None:
    """What a group holds under a name; None: nothing that can be opened, such as a foreign file.

    To ask zarr for all members at once fails where one is broken, and tells it on stderr.
    """
    try:
        return group[name]
    except Exception:  # zarr raises what parsing raises
        return None


def channel_metadata(attributes: Mapping[str, Any]) -> PhotoMetadata:
    """Names, colours and windows of channels."""
    channels = (attributes.get("omero") or {}).get("channels", ())
    colours = tuple(str(channel.get("color", "")).upper() for channel in channels)
    names = tuple(str(channel.get("label", "")) for channel in channels)
    windows = tuple(stated_window(channel.get("window")) for channel in channels)
    return PhotoMetadata(
        channel_names=names if any(names) else (),
        channel_colours=colours if all(colours) else (),
        channel_windows=tuple(one for one in windows if one is not None) if all(windows) else (),
    )


def stated_window(window: Any) -> tuple[float, float] | None:
    """The values that are shown as black and white; None: they are not stated."""
    try:
        low, high = float(window["start"]), float(window["end"])
    except (KeyError, TypeError, ValueError):
        return None
    return (low, high) if low < high else None


def shown_as(metadata: PhotoMetadata, channels: int, notes: list[str]) -> PhotoMetadata:
    """Metadata whose lists are as long as there are channels; appends to `notes` what is not."""
    names = ("channel_names", "channel_colours", "channel_windows")
    wrong = [name for name in names if len(getattr(metadata, name)) not in (0, channels)]
    if wrong:
        count = len(getattr(metadata, wrong[0]))
        notes.append(
            f"its metadata name {count} channels and it has {channels}: names, colours and windows"
            " of channels were left out"
        )
        return replace(metadata, channel_names=(), channel_colours=(), channel_windows=())
    return metadata


def on_ground(metadata: PhotoMetadata, array: Any, axes: str, notes: list[str]) -> PhotoMetadata:
    """Metadata with no-data and the place on the ground that the array states; adds to `notes`."""
    shape = array.shape[axes.index("y")], array.shape[axes.index("x")]
    geo = stated_geo(array.attrs, shape)
    notes += unread_place(array.attrs, geo)
    return replace(metadata, geo=geo, nodata=stated_nodata(array.attrs))


def own_samples(seen: Samples, attributes: Mapping[str, Any], own: PhotoMetadata) -> Samples:
    """What the channels of an output of tierscale are; earlier versions keep no `colour`."""
    ours = attributes[OURS]
    if "colour" not in ours:
        return replace(seen, bits=own.bits)
    return Samples(ours["colour"], ours["alpha"], own.bits)


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
