"""Formats that are decoded whole: JPEG, MPO, WebP, AVIF, GIF, BMP, PNM through Pillow, JPEG 2000
through imagecodecs.
"""

from __future__ import annotations

import os
import struct
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, BinaryIO

import imagecodecs
import numpy as np
from PIL import Image, ImageFile

from tierscale.pipeline.errors import Damaged, Refused
from tierscale.pipeline.formats import samples as arithmetic
from tierscale.pipeline.formats.fingerprint import file_identity
from tierscale.pipeline.formats.metadata import PhotoMetadata, clean_exif, upright_xmp
from tierscale.pipeline.formats.orientation import Turned
from tierscale.pipeline.formats.source import (
    Alpha,
    Colour,
    Source,
    check_decode,
    decoding,
    ingest_bytes,
    window_strips,
)
from tierscale.pipeline.plan.options import Selection

# Pillow's own limit on pixels warns and then raises at fixed counts; check_decode refuses by bytes,
# before anything is decoded.
Image.MAX_IMAGE_PIXELS = None
# Cut files are refused, never filled with grey.
ImageFile.LOAD_TRUNCATED_IMAGES = False

# MPO is opened as the JPEG that it begins with.
FORMATS = ("JPEG", "WEBP", "AVIF", "GIF", "BMP", "PPM")
# What a Pillow mode becomes: the mode it is converted to, the colour, and bytes that Pillow and our
# copy hold for a pixel.
MODES: dict[str, tuple[str, Colour, int]] = {
    "1": ("L", "grey", 2), "L": ("L", "grey", 2), "I;16": ("I;16", "grey", 4), "I;16B": ("I;16B", "grey", 4), "I": ("I", "grey", 6),
    "LA": ("LA", "greya", 6), "P": ("RGB", "rgb", 4), "PA": ("RGBA", "rgba", 8), "RGB": ("RGB", "rgb", 7), "RGBX": ("RGB", "rgb", 7),
    "RGBA": ("RGBA", "rgba", 8), "CMYK": ("CMYK", "rgb", 7), "YCbCr": ("RGB", "rgb", 7),
}  # fmt: skip
# Bytes that the decoders of these formats hold for a pixel besides, measured: planes, canvases, the
# frame as bytes.
DECODER_BYTES = {"WEBP": 18, "AVIF": 10, "GIF": 6}
# Rows that are converted at a time.
BAND_ROWS = 64
# Coefficients of a progressive JPEG, two bytes for each sample, beyond what our copy takes when
# they are gone.
PROGRESSIVE_BYTES = 5


@dataclass(slots=True)
class Whole:
    """A picture that is decoded when it is first read and then held: (channels, y, x)."""

    shape: tuple[int, int, int]
    dtype: np.dtype
    decode: Callable[[], np.ndarray]
    held: np.ndarray | None = field(init=False, default=None)
    anywhere: bool = field(init=False, default=True)

    def read(self, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        """A window of the held picture."""
        if self.held is None:
            held = self.decode()
            if held.shape != self.shape:
                raise ValueError(f"it announces {self.shape} samples but holds {held.shape}")
            self.held = held
        return self.held[:, y0:y1, x0:x1]

    def strips(self) -> Iterator[tuple[int, np.ndarray]]:
        """Rows from top to bottom."""
        yield from window_strips(self)

    def close(self) -> None:
        """Let go of the picture."""
        self.held = None


def open_raster(uri: str, selection: Selection, max_bytes: int | None) -> Source:
    """A file that Pillow decodes. Of several frames the selected one, or the first."""
    frame = selection.series or 0
    with decoding(uri), warnings.catch_warnings():
        check_canvas(uri, frame, max_bytes)
        warnings.simplefilter("ignore")
        with Image.open(uri, formats=FORMATS) as image:
            frames = getattr(image, "n_frames", 1)
            if not 0 <= frame < frames:
                raise Refused(
                    f"{uri}: there is no image {frame}; --series goes from 0 to {frames - 1}"
                )
            image.seek(frame)
            form = str(image.format)
            facts, notes, orientation = raster_facts(image)
            if frames > 1:
                notes.append(f"took image {frame} of {frames} in the file (--series chooses)")
            if image.mode not in MODES:
                raise Refused(
                    f"{uri}: {form} pixels of mode {image.mode} are not supported; convert the file"
                    " to PNG or TIFF"
                )
            mode, colour, held = wanted_mode(image)
            if image.mode == "CMYK":
                notes.append("CMYK was turned to RGB by (1 - c)(1 - k), without its profile")
                facts = replace(facts, icc=None)
            if image.mode == "P":
                notes.append("its palette was expanded to RGB")
            width, height = image.size
            held += DECODER_BYTES.get(form, 1) + PROGRESSIVE_BYTES * bool(
                image.info.get("progressive")
            )
        if not width or not height:
            raise Damaged(f"{uri}: it announces {width} x {height} pixels; fetch it again")
        dtype = np.dtype(np.uint16 if mode.startswith("I") else np.uint8)
        channels = {"grey": 1, "greya": 2, "rgb": 3, "rgba": 4}[colour]
        inner = Whole((channels, height, width), dtype, lambda: decode_pillow(uri, frame, mode))
        pixels = Turned(inner, orientation)
        if orientation > 1:
            notes.append("it was set upright")
        needed = held * width * height + os.stat(uri).st_size + ingest_bytes(inner.shape, dtype)
        check_decode(uri, needed, max_bytes)
        alpha: Alpha | None = "straight" if colour in ("greya", "rgba") else None
    facts = facts.turned() if orientation >= 5 else facts
    identify = partial(file_identity, uri, form, selection)
    return Source(
        uri,
        pixels.shape,
        dtype,
        colour,
        alpha,
        None,
        False,
        needed,
        identify,
        facts,
        tuple(notes),
        pixels,
    )  # type: ignore[arg-type]


def check_canvas(uri: str, frame: int, max_bytes: int | None) -> None:
    """Refuse a GIF by what its frames up to `frame` announce: Pillow fills their backgrounds when
    it opens the file or goes to a frame.
    """
    with open(uri, "rb") as file:
        if file.read(4) == b"GIF8":
            width, height = gif_canvas(file, frame)
            # What the lightest kind of GIF takes; the rest is known and checked when it is open.
            check_decode(uri, (MODES["L"][2] + DECODER_BYTES["GIF"]) * width * height, max_bytes)


def gif_canvas(file: BinaryIO, frame: int) -> tuple[int, int]:
    """Width and height that hold the screen of a GIF and its frames up to `frame`, as far as the
    file goes (GIF89a, sections 18 to 24).

    ValueError: an extension is empty, behind which Pillow would go on at another place than is
    meant.
    """

    def pass_colours(flags: int) -> None:
        if flags & 128:
            file.seek(3 << (flags & 7) + 1, os.SEEK_CUR)

    def block() -> bytes:
        size = file.read(1)
        return file.read(size[0]) if size else b""

    def pass_blocks() -> None:
        while block():
            pass

    def pass_extension() -> None:
        comment = file.read(1) == b"\xfe"
        first = block()
        second = block() if first else b""
        if not (first or comment) or (first.startswith(b"NETSCAPE2.0") and not second):
            raise ValueError("an extension of the GIF is empty; save it anew, as PNG")
        if second:
            pass_blocks()

    file.seek(6)
    width, height, flags = struct.unpack("<2HB", file.read(5).ljust(5, b"\0"))
    file.seek(13)
    pass_colours(flags)
    left = frame + 1
    while left and (mark := file.read(1)) not in (b"", b";"):
        if mark == b"!":
            pass_extension()
        elif mark == b",":
            x, y, wide, high, flags = struct.unpack("<4HB", file.read(9).ljust(9, b"\0"))
            width, height, left = max(width, x + wide), max(height, y + high), left - 1
            pass_colours(flags)
            file.read(1)  # the size of its codes
            pass_blocks()
    return width, height


def wanted_mode(image: Image.Image) -> tuple[str, Colour, int]:
    """The mode to convert to, its colour, bytes held for a pixel; a transparent palette entry
    becomes alpha.
    """
    if "transparency" in image.info and image.mode in ("P", "RGB"):
        return "RGBA", "rgba", 8
    if "transparency" in image.info and image.mode == "L":
        return "LA", "greya", 6
    return MODES[image.mode]


def decode_pillow(uri: str, frame: int, mode: str) -> np.ndarray:
    """The picture as (channels, y, x), in the file's orientation; converted by bands, because
    Pillow's way to numpy copies twice.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(uri, formats=FORMATS) as image:
            image.seek(frame)
            image.load()
            width, height = image.size
            out: np.ndarray | None = None
            for y in range(0, height, BAND_ROWS):
                band = final_band(image.crop((0, y, width, min(y + BAND_ROWS, height))), mode)
                out = np.empty((band.shape[0], height, width), band.dtype) if out is None else out
                out[:, y : y + band.shape[1]] = band
    assert out is not None
    return out


def final_band(band: Image.Image, mode: str) -> np.ndarray:
    """Rows of a Pillow image as (channels, y, x)."""
    block = np.asarray(band if band.mode == mode else band.convert(mode))
    if mode == "CMYK":
        return arithmetic.channels_first(arithmetic.from_cmyk(block))
    block = block.astype(np.uint16) if mode.startswith("I") else block
    return arithmetic.channels_first(block) if block.ndim == 3 else block[None]


def raster_facts(image: Image.Image) -> tuple[PhotoMetadata, list[str], int]:
    """Facts, notes and EXIF orientation of an opened picture."""
    notes: list[str] = []
    exif, orientation = None, 1
    try:
        exif, orientation = clean_exif(image.getexif())
    except Exception:  # a broken EXIF block costs the EXIF, not the picture
        notes.append("its EXIF block is damaged and was left out")
    info: dict[Any, Any] = image.info
    dpi = info.get("dpi")
    xmp = info.get("xmp")
    known = isinstance(dpi, tuple) and len(dpi) == 2 and all(dpi)
    facts = PhotoMetadata(
        icc=info.get("icc_profile") or None,
        exif=exif,
        xmp=upright_xmp(xmp.encode() if isinstance(xmp, str) else xmp),
        resolution=(float(dpi[0]), float(dpi[1])) if known else None,  # type: ignore[index]
        resolution_unit="inch" if known else None,
    )
    return facts, notes, orientation


def open_jpeg2000(uri: str, selection: Selection, max_bytes: int | None) -> Source:
    """A JPEG 2000 file or codestream of 1 to 4 components of one size, 8 or 16 bits."""
    with decoding(uri):
        with open(uri, "rb") as file:
            start = file.read(1 << 16)
        at = start.find(b"\xff\x4f\xff\x51")
        if at < 0 or len(start) < at + 42:
            raise Damaged(f"{uri}: the JPEG 2000 file has no image header; fetch it again")
        right, bottom, left, top = struct.unpack_from(">4I", start, at + 8)
        count = struct.unpack_from(">H", start, at + 40)[0]
        sizes = {struct.unpack_from(">3B", start, at + 42 + 3 * i) for i in range(min(count, 5))}
        depths = {depth for depth, _, _ in sizes}
        if count not in (1, 2, 3, 4) or len(depths) != 1 or next(iter(depths)) > 15:
            raise Refused(
                f"{uri}: JPEG 2000 of {count} components of depths {sorted(depths)} is not"
                " supported; convert it to TIFF"
            )
        bits = next(iter(depths)) + 1
        dtype = np.dtype(np.uint8 if bits <= 8 else np.uint16)
        shape = (count, bottom - top, right - left)
        if not 0 < shape[1] < 2**31 or not 0 < shape[2] < 2**31:
            raise Damaged(f"{uri}: it announces {shape[2]} x {shape[1]} pixels; fetch it again")
        colour: Colour = ("grey", "greya", "rgb", "rgba")[count - 1]  # type: ignore[assignment]
        # OpenJPEG decodes into 32-bit integers, which are then copied.
        pixels = Whole(shape, dtype, lambda: decode_jpeg2000(uri))
        needed = (8 + 2 * dtype.itemsize) * int(np.prod(shape)) + ingest_bytes(shape, dtype)
        check_decode(uri, needed, max_bytes)
        stated = bits if bits not in (8, 16) else None
        alpha: Alpha | None = "straight" if count in (2, 4) else None
    identify = partial(file_identity, uri, "JPEG2000", selection)
    return Source(
        uri,
        shape,
        dtype,
        colour,
        alpha,
        stated,
        False,
        needed,
        identify,
        PhotoMetadata(),
        (),
        pixels,
    )  # type: ignore[arg-type]


def decode_jpeg2000(uri: str) -> np.ndarray:
    """The picture as (channels, y, x). OpenJPEG is strict here: what is cut off is an error."""
    with open(uri, "rb") as file:
        block = imagecodecs.jpeg2k_decode(file.read())
    return arithmetic.channels_first(block) if block.ndim == 3 else block[None]
