"""Zarr arrays of version 2 and 3, OME-Zarr images and ingested copies as sources."""

from __future__ import annotations

import hashlib
import math
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import zarr
from numpy import ndarray

from tierscale.pipeline.errors import Unreachable
from tierscale.pipeline.formats import samples as arithmetic
from tierscale.pipeline.formats.arrays.array import (
    AT_ONCE,
    ArrayPixels,
    check_size,
    guessed_axes,
    named_axes,
)
from tierscale.pipeline.formats.arrays.ingested import INGESTED, open_copy
from tierscale.pipeline.formats.arrays.ome import ZarrImage, chosen_planes, image_in_group
from tierscale.pipeline.formats.arrays.stated import stated_geo, stated_nodata, unread_place
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
            image = plain_array(node, uri, selection)
        _, note = arithmetic.pixel_type(image.array.dtype, uri)
        pixels = _pixels(image, uri)
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
        notes=(*image.notes, *((note,) if note else ())),
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


def _pixels(image: ZarrImage, uri: str) -> ArrayPixels:
    files = [os.path.join(uri, name) for name in METADATA if "://" not in uri]
    file = next(filter(os.path.exists, files), None)
    if file is None:
        return ArrayPixels(image.array, image.axes, image.at)
    return FolderPixels(image.array, image.axes, image.at, file)


def plain_array(array: Any, uri: str, selection: Selection) -> ZarrImage:
    """A zarr array without OME metadata; axes by its dimension names, else guessed by its shape."""
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    letters = named_axes(names) if names and all(names) else ""
    known = len(set(letters)) == array.ndim and {"y", "x"} <= set(letters)
    axes = letters if known else guessed_axes(array.shape, uri)
    notes = [] if known or array.ndim == 2 else [f"its axes were taken to be {axes}"]
    at = chosen_planes(axes, array.shape, selection, uri, notes)
    sizes = dict(zip(axes, array.shape, strict=True))
    geo = stated_geo(array.attrs, (sizes["y"], sizes["x"]))
    notes += unread_place(array.attrs, geo)
    metadata = PhotoMetadata(nodata=stated_nodata(array.attrs), geo=geo)
    return ZarrImage(array, axes, at, metadata, plain_samples(sizes.get("c", 1)), tuple(notes))


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
