"""Zarr arrays, OME-Zarr 0.4 and 0.5, the bioformats2raw layout, and ingested copies."""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import zarr

from tierscale.pipeline.errors import Damaged, Refused
from tierscale.pipeline.formats import samples as arithmetic
from tierscale.pipeline.formats.arrays.array import (
    PLAIN_COLOURS,
    ArrayPixels,
    check_size,
    guessed_axes,
)
from tierscale.pipeline.formats.arrays.ingested import AT_ONCE, INGESTED, reopened
from tierscale.pipeline.formats.fingerprint import folder_identity, selected
from tierscale.pipeline.formats.metadata import PhotoMetadata
from tierscale.pipeline.formats.source import (
    Alpha,
    Colour,
    Selection,
    Source,
    check_decode,
    decoding,
    ingest_bytes,
)
from tierscale.pipeline.storage.object_path import ObjectPath
from tierscale.pipeline.storage.paths import place
from tierscale.pipeline.storage.zarr_store import zarr_store

METADATA = ("zarr.json", ".zarray", ".zgroup")
# A chunk larger than this is a poor way to reach a window.
LARGE_CHUNK = 64 << 20
RGB_COLOURS = ("FF0000", "00FF00", "0000FF")
NAMED_COLOURS: dict[tuple[str, ...], tuple[Colour, Alpha | None]] = {
    ("red", "green", "blue"): ("rgb", None),
    ("red", "green", "blue", "alpha"): ("rgba", "straight"),
}
GENERIC_NAMES = (
    "",
    "red",
    "green",
    "blue",
    "r",
    "g",
    "b",
    "channel 0",
    "channel 1",
    "channel 2",
    "0",
    "1",
    "2",
)


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """An array in a zarr and what its metadata say: axes letters, facts, colour, and what was
    chosen.
    """

    array: Any
    axes: str
    facts: PhotoMetadata
    colour: tuple[Colour, Alpha | None]
    notes: tuple[str, ...]


def open_zarr(uri: str, selection: Selection, max_bytes: int | None) -> Source:
    """A zarr v2 or v3 array, an OME-Zarr image, or a copy that `ingest` made."""
    with decoding(uri), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        node = zarr.open(zarr_store(uri), mode="r")
        kept = node.attrs.get(INGESTED) if isinstance(node, zarr.Array) else None
        if isinstance(kept, Mapping):
            return reopened(uri, node, kept)
        found = (
            image_in_group(node, uri, selection)
            if isinstance(node, zarr.Group)
            else plain_array(node, uri)
        )
        at, notes = chosen_planes(found, selection, uri)
        dtype, note = arithmetic.kept_type(found.array.dtype, uri)
        pixels = ArrayPixels(found.array, found.axes, at)
        check_size(pixels.shape, uri)
        chunk = math.prod(found.array.chunks) * found.array.dtype.itemsize
        nearby = chunk <= LARGE_CHUNK
        needed = (
            2 * AT_ONCE * chunk
            if nearby
            else 2 * chunk * -(-pixels.shape[2] // max(1, found.array.chunks[-1]))
        )
        needed += 0 if nearby else ingest_bytes(pixels.shape, dtype)
        check_decode(uri, needed, max_bytes)
    colour, alpha = found.colour
    told = (*found.notes, *notes, *((note,) if note else ()))
    identify = partial(zarr_identity, uri, selection)
    return Source(
        uri,
        pixels.shape,
        dtype,
        colour,
        alpha,
        None,
        nearby,
        needed,
        identify,
        found.facts,
        told,
        pixels,
    )


def plain_array(array: Any, uri: str) -> SourceInfo:
    """A zarr array without OME metadata; axes by its dimension names, else guessed from its
    shape.
    """
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    letters = "".join(str(name)[:1].lower() for name in names) if names and all(names) else ""
    known = len(set(letters)) == array.ndim and {"y", "x"} <= set(letters)
    axes = letters if known else guessed_axes(array.shape, uri)
    channels = dict(zip(axes, array.shape, strict=True)).get("c", 1)
    notes = () if known or array.ndim == 2 else (f"its axes were taken to be {axes}",)
    return SourceInfo(
        array, axes, PhotoMetadata(), PLAIN_COLOURS.get(channels, ("channels", None)), notes
    )


def image_in_group(group: Any, uri: str, selection: Selection) -> SourceInfo:
    """The selected image and level of an OME-Zarr group."""
    notes: list[str] = []
    attributes = ome_attributes(group)
    if "plate" in attributes:
        raise Refused(
            f"{uri}: this is a plate of many images; name one of them, such as"
            f" {uri.rstrip('/')}/A/1/0"
        )
    if "multiscales" not in attributes:
        group, attributes = series_group(group, uri, selection, notes)
    elif selection.series:
        raise Refused(
            f"{uri}: there is no image {selection.series}; the file holds one, leave out --series"
        )
    scales = attributes["multiscales"][0]
    datasets = scales["datasets"]
    if not 0 <= selection.level < len(datasets):
        raise Refused(
            f"{uri}: there is no pyramid level {selection.level}; --level goes from 0 to"
            f" {len(datasets) - 1}"
        )
    if selection.level:
        notes.append(f"took pyramid level {selection.level} of {len(datasets)}")
    array = group[datasets[selection.level]["path"]]
    listed = scales.get("axes") or "tczyx"[-array.ndim :]
    axes = "".join(
        (axis["name"] if isinstance(axis, Mapping) else axis)[0].lower() for axis in listed
    )
    if len(axes) != array.ndim or len(set(axes)) != len(axes) or not {"y", "x"} <= set(axes):
        raise Damaged(
            f"{uri}: its metadata name axes {axes} for an array of shape {array.shape}; mend the"
            " metadata"
        )
    channels = dict(zip(axes, array.shape, strict=True)).get("c", 1)
    facts = ome_facts(attributes, scales, datasets[selection.level], axes, listed)
    return SourceInfo(array, axes, facts, ome_colour(facts, array.dtype, channels), tuple(notes))


def ome_attributes(group: Any) -> dict[str, Any]:
    """OME metadata of a group, which 0.5 keeps under "ome" and 0.4 at the top."""
    attributes = dict(group.attrs)
    held = attributes.get("ome")
    return {**attributes, **held} if isinstance(held, Mapping) else attributes


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
        raise Refused(f"{uri}: this zarr group is no OME-Zarr image; {hint}")
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


def ome_facts(
    attributes: Mapping[str, Any],
    scales: Mapping[str, Any],
    dataset: Mapping[str, Any],
    axes: str,
    listed: Sequence[Any],
) -> PhotoMetadata:
    """Pixel size, channel names and colours of an OME-Zarr image."""
    factors = [1.0] * len(axes)
    for holder in (dataset, scales):
        for transform in holder.get("coordinateTransformations", ()):
            if transform.get("type") == "scale" and len(transform.get("scale", ())) == len(axes):
                factors = [a * float(b) for a, b in zip(factors, transform["scale"], strict=True)]
    y, x = axes.index("y"), axes.index("x")
    unit = listed[y].get("unit") if isinstance(listed[y], Mapping) else None
    channels = (attributes.get("omero") or {}).get("channels", ())
    colours = tuple(str(channel.get("color", "")).upper() for channel in channels)
    names = tuple(str(channel.get("label", "")) for channel in channels)
    size = (factors[y], factors[x])
    return PhotoMetadata(
        pixel_size=size if unit else None,
        pixel_unit=unit,
        channel_names=names if any(names) else (),
        channel_colours=colours if all(colours) else (),
    )


def ome_colour(facts: PhotoMetadata, dtype: np.dtype, channels: int) -> tuple[Colour, Alpha | None]:
    """Colour of an OME-Zarr image.

    OME-Zarr cannot say "RGB": converters of slides write three channels coloured pure red, green
    and blue without names of dyes, tierscale names them by their colours, and only such a triple is
    taken as RGB. Everything else is greys.
    """
    if channels == 1:
        return "grey", None
    names = tuple(name.lower() for name in facts.channel_names)
    coloured = facts.channel_colours[:3] == RGB_COLOURS
    if coloured and names in NAMED_COLOURS:
        return NAMED_COLOURS[names]
    if channels == 2 and names == ("grey", "alpha"):
        return "greya", "straight"
    if (
        channels == 3
        and dtype in (np.uint8, np.uint16)
        and coloured
        and all(name in GENERIC_NAMES for name in names)
    ):
        return "rgb", None
    return "channels", None


def chosen_planes(
    found: SourceInfo, selection: Selection, uri: str
) -> tuple[dict[str, int], tuple[str, ...]]:
    """(index on each axis that is not c, y, x; notes on what was taken)."""
    at: dict[str, int] = {}
    notes: list[str] = []
    for axis in "zt":
        if getattr(selection, axis) and axis not in found.axes:
            raise Refused(
                f"{uri}: --{axis} {getattr(selection, axis)} was asked for, but the image has no"
                " such axis; leave it out"
            )
    for axis, size in zip(found.axes, found.array.shape, strict=True):
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
    return at, tuple(notes)


def zarr_identity(uri: str, selection: Selection) -> dict[str, str | int]:
    """Identity of a zarr: by its files where it lies in a folder, else by the names, sizes and
    etags of its objects.
    """
    where = place(uri)
    if not isinstance(where, ObjectPath):
        return folder_identity(uri, "zarr", selection)
    entries = where.listed()
    digest = hashlib.sha256(
        repr([(entry.key, entry.bytes, entry.etag) for entry in entries]).encode()
    )
    total = sum(entry.bytes for entry in entries)
    return {
        "format": "zarr",
        "bytes": total,
        "selection": selected(selection),
        "sha256_listing": digest.hexdigest(),
    }
