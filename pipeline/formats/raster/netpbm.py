"""Formats whose pixels lie in the file as they are: .npy and binary PGM and PPM."""

from __future__ import annotations

import os
import re
from functools import partial

import numpy as np

from tierscale.pipeline.errors import Damaged, Refused
from tierscale.pipeline.formats.arrays.array import array_source, guessed_axes
from tierscale.pipeline.formats.decoding import decoding
from tierscale.pipeline.formats.fingerprint import file_identity
from tierscale.pipeline.formats.metadata import PhotoMetadata
from tierscale.pipeline.formats.raster.pillow import open_raster
from tierscale.pipeline.formats.source import Samples, Source
from tierscale.pipeline.formats.uncompressed import Conversion, Layout, UncompressedPixels
from tierscale.pipeline.plan.options import Selection

PNM_HEADER = re.compile(rb"P([56])" + rb"(?:\s+(?:#[^\n\r]*[\n\r]\s*)*)(\d{1,9})" * 3 + rb"\s")


def open_npy(uri: str, selection: Selection, max_bytes: int | None) -> Source:
    """A numpy file, mapped into memory; axes guessed by its shape. Raises what open_image does."""
    with decoding(uri):
        try:
            array = np.load(uri, mmap_mode="r", allow_pickle=False)
        except ValueError as error:
            if "object" in str(error).lower() or "pickle" in str(error).lower():
                raise Refused(
                    f"{uri}: it holds Python objects, not numbers; save a numeric array"
                ) from error
            raise
        if array.ndim < 2 or 0 in array.shape:
            raise Refused(
                f"{uri}: an array of shape {array.shape} is not an image; save one of shape"
                " (y, x), (y, x, c) or (c, y, x)"
            )
        axes = guessed_axes(array.shape, uri)
        notes = () if array.ndim == 2 else (f"its axes were taken to be {axes}",)
        identify = partial(file_identity, uri, "NPY", selection)
        return array_source(array, axes, uri, identify, notes)


def open_pnm(uri: str, selection: Selection, max_bytes: int | None) -> Source:
    """A binary PGM or PPM, read in place. Raises what open_image does.

    Values stay as they are; the header's largest value tells the significant bits.
    """
    with decoding(uri):
        with open(uri, "rb") as file:
            head = PNM_HEADER.match(file.read(4096))
        if head is None:
            raise Damaged(f"{uri}: its PNM header cannot be read; fetch it again")
        channels = {b"5": 1, b"6": 3}[head[1]]
        width, height, top = (int(number) for number in head.groups()[1:])
        if not width or not height or not 0 < top < 65536:
            raise Damaged(
                f"{uri}: its PNM header is impossible ({width} x {height}, largest value {top});"
                " fetch it again"
            )
        if top < 255:
            return open_raster(uri, selection, max_bytes)
        stored = np.dtype(np.uint8) if top == 255 else np.dtype(">u2")
        missing = head.end() + width * height * channels * stored.itemsize - os.stat(uri).st_size
        if missing > 0:
            raise Damaged(
                f"{uri}: {missing} bytes of its pixels are missing; it is cut short, fetch it again"
            )
        pixels = UncompressedPixels(
            uri=uri,
            handle=os.open(uri, os.O_RDONLY | os.O_CLOEXEC),
            layout=Layout((head.end(),), channels, stored),
            convert=Conversion((), stored.newbyteorder("=")),
            shape=(channels, height, width),
        )
    bits = top.bit_length() if top not in (255, 65535) else None
    return Source(
        uri=uri,
        pixels=pixels,
        samples=Samples("grey" if channels == 1 else "rgb", bits=bits),
        metadata=PhotoMetadata(),
        random_access=True,
        decode_bytes=0,
        notes=(),
        identify=partial(file_identity, uri, "PNM", selection),
    )
