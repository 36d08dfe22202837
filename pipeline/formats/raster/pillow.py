"""Formats that Pillow decodes whole: JPEG, MPO, WebP, AVIF, GIF, BMP and PNM."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from PIL import Image, ImageFile

from tierscale.pipeline.errors import Damaged, Refused, one_line
from tierscale.pipeline.formats import samples as arithmetic
from tierscale.pipeline.formats.decoding import check_decode, decoding
from tierscale.pipeline.formats.fingerprint import file_identity
from tierscale.pipeline.formats.metadata import PhotoMetadata
from tierscale.pipeline.formats.orientation import UprightPixels
from tierscale.pipeline.formats.raster.avif import avif_profile
from tierscale.pipeline.formats.raster.embedded import raster_metadata
from tierscale.pipeline.formats.raster.gif import gif_canvas
from tierscale.pipeline.formats.raster.jpeg_markers import check_jpeg
from tierscale.pipeline.formats.raster.jpeg_quality import jpeg_quality
from tierscale.pipeline.formats.raster.whole import WholePixels
from tierscale.pipeline.formats.source import CHANNELS, Colour, Samples, Source, ingest_bytes
from tierscale.pipeline.plan.options import Selection

# Pillow's own limit on pixels warns and then raises at fixed counts; check_decode refuses by bytes,
# before anything is decoded.
Image.MAX_IMAGE_PIXELS = None
# Cut files are refused, never filled with grey.
ImageFile.LOAD_TRUNCATED_IMAGES = False

# MPO is opened as the JPEG that it begins with.
FORMATS = ("JPEG", "WEBP", "AVIF", "GIF", "BMP", "PPM")


@dataclass(frozen=True, slots=True)
class Mode:
    """What pixels of a Pillow mode become.

    name: mode that they are converted to. colour: of the result. pixel_bytes: bytes that Pillow and
    our copy hold for a pixel.
    """

    name: str
    colour: Colour
    pixel_bytes: int


MODES: dict[str, Mode] = {
    "1": Mode("L", "grey", 2),
    "L": Mode("L", "grey", 2),
    "I;16": Mode("I;16", "grey", 4),
    "I;16B": Mode("I;16B", "grey", 4),
    "I": Mode("I", "grey", 6),
    "LA": Mode("LA", "greya", 6),
    "P": Mode("RGB", "rgb", 4),
    "PA": Mode("RGBA", "rgba", 8),
    "RGB": Mode("RGB", "rgb", 7),
    "RGBX": Mode("RGB", "rgb", 7),
    "RGBA": Mode("RGBA", "rgba", 8),
    "CMYK": Mode("CMYK", "rgb", 7),
    "YCbCr": Mode("RGB", "rgb", 7),
}
# Bytes that the decoders of these formats hold for a pixel besides, measured: planes, canvases, the
# frame as bytes.
DECODER_BYTES = {"WEBP": 18, "AVIF": 10, "GIF": 6}
# Rows that are converted at a time.
BAND_ROWS = 64
# Coefficients of a progressive JPEG, two bytes for each sample, beyond what our copy takes when
# they are gone.
PROGRESSIVE_BYTES = 5


@dataclass(frozen=True, slots=True)
class RasterImage:
    """What Pillow says of a picture before it is decoded.

    form: Pillow's name of the format. size: (height, width), not yet upright. pixel_bytes: bytes
    that decoding holds for a pixel. quality: of a JPEG, by its tables.
    """

    form: str
    size: tuple[int, int]
    mode: Mode
    pixel_bytes: int
    metadata: PhotoMetadata
    orientation: int
    notes: tuple[str, ...]
    quality: int | None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, y, x), not yet upright."""
        return (CHANNELS[self.mode.colour], *self.size)

    @property
    def dtype(self) -> np.dtype:
        """Type of the decoded samples."""
        return np.dtype(np.uint16 if self.mode.name.startswith("I") else np.uint8)


def open_raster(uri: str, selection: Selection, max_bytes: int | None) -> Source:
    """A file that Pillow decodes: of several frames the selected one.

    Raises what open_image does.
    """
    frame = selection.series or 0
    with decoding(uri):
        check_canvas(uri, frame, max_bytes)
        damaged = jpeg_notes(uri)
        image = describe(uri, frame)
        height, width = image.size
        decoded = image.pixel_bytes * width * height + os.stat(uri).st_size
        needed = decoded + ingest_bytes(image.shape, image.dtype)
        check_decode(uri, needed, max_bytes)
    inner = WholePixels(image.shape, image.dtype, partial(decode, uri, frame, image.mode.name))
    swapped = image.orientation >= 5
    colour = image.mode.colour
    return Source(
        uri=uri,
        pixels=UprightPixels(inner, image.orientation),
        samples=Samples(colour, "straight" if colour in ("greya", "rgba") else None),
        metadata=image.metadata.transposed() if swapped else image.metadata,
        random_access=False,
        decode_bytes=needed,
        notes=(*image.notes, *damaged),
        identify=partial(file_identity, uri, image.form, selection),
        jpeg_quality=image.quality,
    )


def check_canvas(uri: str, frame: int, max_bytes: int | None) -> None:
    """Refuse a GIF by what its frames up to `frame` announce.

    Pillow fills their backgrounds when it opens the file or goes to a frame.
    """
    with open(uri, "rb") as file:
        if file.read(4) == b"GIF8":
            width, height = gif_canvas(file, frame)
            # What the lightest kind of GIF takes; the rest is known and checked when it is open.
            pixel_bytes = MODES["L"].pixel_bytes + DECODER_BYTES["GIF"]
            check_decode(uri, pixel_bytes * width * height, max_bytes)


def jpeg_notes(uri: str) -> list[str]:
    """Notes on damage in a JPEG that its decoder hides. Refused: a JPEG that Pillow cannot do."""
    with open(uri, "rb") as file:
        head = file.read(2)
        return check_jpeg(head + file.read(), uri) if head == b"\xff\xd8" else []


def describe(uri: str, frame: int) -> RasterImage:
    """What Pillow says of a frame. Refused: there is none, or its mode is not supported."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", UserWarning)
        with Image.open(uri, formats=FORMATS) as image:
            frames = getattr(image, "n_frames", 1)
            if not 0 <= frame < frames:
                raise Refused(
                    f"{uri}: there is no image {frame}; --series goes from 0 to {frames - 1}"
                )
            image.seek(frame)
            form = str(image.format)
            if image.mode not in MODES:
                raise Refused(
                    f"{uri}: {form} pixels of mode {image.mode} are not supported; convert the file"
                    " to PNG or TIFF"
                )
            if 0 in image.size:
                width, height = image.size
                raise Damaged(f"{uri}: it announces {width} x {height} pixels; fetch it again")
            metadata, notes, orientation = raster_metadata(image)
            if form == "AVIF":
                stated = avif_profile(uri)
                metadata = replace(metadata, icc=metadata.icc or stated)
            if frames > 1:
                notes.append(f"took image {frame} of {frames} in the file (--series chooses)")
            if image.mode == "CMYK":
                notes.append("CMYK was turned to RGB by (1 - c)(1 - k), without its profile")
                metadata = replace(metadata, icc=None)
            if image.mode == "P":
                notes.append("its palette was expanded to RGB")
            if orientation > 1:
                notes.append("it was set upright")
            mode = wanted_mode(image)
            progressive = PROGRESSIVE_BYTES if image.info.get("progressive") else 0
            pixel_bytes = mode.pixel_bytes + DECODER_BYTES.get(form, 1) + progressive
            size = (image.height, image.width)
            quality = jpeg_quality(getattr(image, "quantization", {}))
    notes += [f"its decoder warns: {one_line(warning.message)}" for warning in warned]
    return RasterImage(form, size, mode, pixel_bytes, metadata, orientation, tuple(notes), quality)


def wanted_mode(image: Image.Image) -> Mode:
    """The mode to convert to; a transparent colour or palette entry becomes alpha."""
    if "transparency" in image.info and image.mode in ("P", "RGB"):
        return Mode("RGBA", "rgba", 8)
    if "transparency" in image.info and image.mode == "L":
        return Mode("LA", "greya", 6)
    return MODES[image.mode]


def decode(uri: str, frame: int, mode: str) -> np.ndarray:
    """The picture as (channels, y, x), in the file's orientation.

    It is converted by bands, because Pillow's way to numpy copies twice.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(uri, formats=FORMATS) as image:
            image.seek(frame)
            image.load()
            width, height = image.size
            first = final_band(image.crop((0, 0, width, min(BAND_ROWS, height))), mode)
            out = np.empty((first.shape[0], height, width), first.dtype)
            out[:, : first.shape[1]] = first
            for y in range(BAND_ROWS, height, BAND_ROWS):
                band = final_band(image.crop((0, y, width, min(y + BAND_ROWS, height))), mode)
                out[:, y : y + band.shape[1]] = band
    return out


def final_band(band: Image.Image, mode: str) -> np.ndarray:
    """Rows of a Pillow image as (channels, y, x)."""
    block = np.asarray(band if band.mode == mode else band.convert(mode))
    if mode == "CMYK":
        return arithmetic.channels_first(arithmetic.from_cmyk(block))
    block = block.astype(np.uint16) if mode.startswith("I") else block
    return arithmetic.channels_first(block) if block.ndim == 3 else block[None]
