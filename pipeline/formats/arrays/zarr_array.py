"""Zarr arrays of version 2 and 3, OME-Zarr images and ingested copies as sources."""

from __future__ import annotations

import base64
import hashlib
import math
import os
import struct
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import zarr
from numpy import ndarray

from tierscale.pipeline.errors import Refused, Unreachable
from tierscale.pipeline.formats import samples as arithmetic
from tierscale.pipeline.formats.arrays.array import AT_ONCE, ArrayPixels, check_size, guessed_axes
from tierscale.pipeline.formats.arrays.ingested import INGESTED, open_copy
from tierscale.pipeline.formats.arrays.ome import ZarrImage, image_in_group
from tierscale.pipeline.formats.decoding import check_decode, decoding
from tierscale.pipeline.formats.fingerprint import folder_identity, selected
from tierscale.pipeline.formats.metadata import PhotoMetadata
from tierscale.pipeline.formats.source import Identity, Source, ingest_bytes, plain_samples
from tierscale.pipeline.plan.options import Selection
from tierscale.pipeline.storage.object_path import ObjectPath
from tierscale.pipeline.storage.paths import place
from tierscale.pipeline.storage.zarr_store import zarr_store

# Files of which a folder that is a zarr has one.
METADATA = ("zarr.json", ".zarray", ".zgroup")
# A chunk larger than this is a poor way to reach a window.
LARGE_CHUNK = 64 << 20


def open_zarr(uri: str, selection: Selection, max_bytes: int | None) -> Source:
    """A zarr v2 or v3 array, an OME-Zarr image, or a copy that `ingest` made."""
    with decoding(uri), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        node = zarr.open(zarr_store(uri), mode="r")
        stored = node.attrs.get(INGESTED) if isinstance(node, zarr.Array) else None
        if isinstance(stored, Mapping):
            return open_copy(uri, node, stored)
        if isinstance(node, zarr.Group):
            image = image_in_group(node, uri, selection)
        else:
            image = plain_array(node, uri)
        at, notes = chosen_planes(image, selection, uri)
        _, note = arithmetic.pixel_type(image.array.dtype, uri)
        pixels = _pixels(image, at, uri)
        check_size(pixels.shape, uri)
        chunk_bytes = math.prod(image.array.chunks) * image.array.dtype.itemsize
        random_access = chunk_bytes <= LARGE_CHUNK
        if random_access:
            needed = 2 * AT_ONCE * chunk_bytes
        else:
            across = -(-pixels.shape[2] // max(1, image.array.chunks[-1]))
            needed = 2 * chunk_bytes * across + ingest_bytes(pixels.shape, pixels.dtype)
        check_decode(uri, needed, max_bytes)
    return Source(
        uri=uri,
        pixels=pixels,
        samples=image.samples,
        metadata=image.metadata,
        random_access=random_access,
        decode_bytes=needed,
        notes=(*image.notes, *notes, *((note,) if note else ())),
        identify=partial(zarr_identity, uri, selection),
    )


@dataclass(slots=True)
class FolderPixels(ArrayPixels):
    """Pixels of a zarr in a local folder, which may go away while it is read.

    Chunks that are missing then would read as black, as those do that were never written. file:
    metadata of the zarr.
    """

    file: str

    def read(self, y0: int, y1: int, x0: int, x1: int) -> ndarray:
        """A window. Unreachable: the folder is not there any more."""
        block = ArrayPixels.read(self, y0, y1, x0, x1)
        if not os.path.exists(self.file):
            raise Unreachable(
                f"{os.path.dirname(self.file)} went away while it was read; check its disk, then"
                " run the same command again"
            )
        return block


def _pixels(image: ZarrImage, at: Mapping[str, int], uri: str) -> ArrayPixels:
    files = [os.path.join(uri, name) for name in METADATA if "://" not in uri]
    file = next(filter(os.path.exists, files), None)
    if file is None:
        return ArrayPixels(image.array, image.axes, at)
    return FolderPixels(image.array, image.axes, at, file)


def plain_array(array: Any, uri: str) -> ZarrImage:
    """A zarr array without OME metadata; axes by its dimension names, else guessed by its shape."""
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    letters = "".join(str(name)[:1].lower() for name in names) if names and all(names) else ""
    known = len(set(letters)) == array.ndim and {"y", "x"} <= set(letters)
    axes = letters if known else guessed_axes(array.shape, uri)
    channels = dict(zip(axes, array.shape, strict=True)).get("c", 1)
    notes = () if known or array.ndim == 2 else (f"its axes were taken to be {axes}",)
    metadata = PhotoMetadata(nodata=stated_nodata(array.attrs))
    return ZarrImage(array, axes, metadata, plain_samples(channels), notes)


def stated_nodata(attributes: Mapping[str, Any]) -> float | None:
    """What marks missing values by the CF conventions: _FillValue, else missing_value.

    The fill value of the array itself is none: zarr's is 0 where nobody chose it. xarray writes
    _FillValue as text too: little-endian float64 in base64.
    """
    for name in ("_FillValue", "missing_value"):
        value = attributes.get(name)
        value = value[0] if isinstance(value, list) and len(value) == 1 else value
        if isinstance(value, int | float | str):
            with suppress(ValueError):
                return float(value)
        if isinstance(value, str):
            with suppress(ValueError, struct.error):
                return float(struct.unpack("<d", base64.b64decode(value, validate=True))[0])
    return None


def chosen_planes(
    image: ZarrImage, selection: Selection, uri: str
) -> tuple[dict[str, int], tuple[str, ...]]:
    """(index on each axis that is not c, y, x; notes on the choice). Refused: no such plane."""
    at: dict[str, int] = {}
    notes: list[str] = []
    for axis in "zt":
        if getattr(selection, axis) and axis not in image.axes:
            raise Refused(
                f"{uri}: --{axis} {getattr(selection, axis)} was given, but the image has no"
                " such axis; leave it out"
            )
    for axis, size in zip(image.axes, image.array.shape, strict=True):
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


def zarr_identity(uri: str, selection: Selection) -> Identity:
    """Identity of a zarr: by the files of its folder, or the names, sizes, etags of its objects."""
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
