"""An output OME-Zarr as a PNG, written by bands of rows."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np
import zarr

from tierscale.pipeline.errors import Refused
from tierscale.pipeline.formats.metadata import PhotoMetadata
from tierscale.pipeline.formats.png.stream import SIGNATURE, chunk
from tierscale.pipeline.output.export.common import (
    Exported,
    Progress,
    per_metre,
    whole_file,
    with_progress,
)
from tierscale.pipeline.wording import compared

KINDS = {"grey": 0, "rgb": 2, "greya": 4, "rgba": 6}
SAMPLES = {"grey": 1, "rgb": 3, "greya": 2, "rgba": 4}
PAETH = 4
# Bytes held for each byte of a band: as read, transposed, unpremultiplied, and the int16 terms of
# the filter.
COPIES = 20
BAND_ROWS = 512
# PNG specification (ISO/IEC 15948), section 11.2.2.
LONGEST_SIDE = (1 << 31) - 1


def export_png(
    image: Exported, out: str, *, max_bytes: int, progress: Progress | None = None
) -> None:
    """Write full resolution as a PNG of 8 or 16 bits, with profile, EXIF, XMP and resolution.

    It is written in bands that fit into `max_bytes`. Premultiplied colours are divided by their
    alpha, since PNG holds straight alpha only. Refused, naming TIFF: not even one row fits; floats;
    scientific channels. progress: (bands written, all).
    """
    level = image.levels()[0]
    rows = _band_rows(image, level, out, max_bytes)
    _, height, width = level.shape
    header = struct.pack(
        ">IIBBBBB", width, height, 8 * level.dtype.itemsize, KINDS.get(image.colour, 0), 0, 0, 0
    )
    with whole_file(out) as temporary, open(temporary, "wb") as file:
        file.write(SIGNATURE + chunk(b"IHDR", header) + metadata_chunks(image.metadata))
        rows_of = with_progress(bands(image, level, rows), -(-height // rows), progress)
        for data in compressed(rows_of):
            file.write(chunk(b"IDAT", data))
        file.write(chunk(b"IEND", b""))


def _band_rows(image: Exported, level: zarr.Array, out: str, max_bytes: int) -> int:
    """Rows of a band that fits into `max_bytes`. Refused: PNG cannot hold this image."""
    channels, height, width = level.shape
    if level.dtype not in (np.uint8, np.uint16):
        raise Refused(f"{out}: PNG holds 8 or 16 bits, not {level.dtype}; export to TIFF")
    if SAMPLES.get(image.colour) != channels and not (image.colour == "channels" and channels == 1):
        raise Refused(
            f"{out}: PNG holds grey or RGB, not {channels} separate channels; export to TIFF"
        )
    row = channels * width * level.dtype.itemsize
    if max(width, height) > LONGEST_SIDE:
        raise Refused(
            f"{out}: PNG holds sides of up to {LONGEST_SIDE} pixels, not {width}x{height}; export"
            " to TIFF"
        )
    rows = min(BAND_ROWS, height, max_bytes // (COPIES * row))
    if rows < 1:
        takes, may = compared(COPIES * row, max_bytes)
        raise Refused(
            f"{out}: one row of {width} pixels takes {takes}, but only {may} may be used; export to"
            f" TIFF, or give --max-memory {COPIES * row}"
        )
    return rows


def bands(image: Exported, level: zarr.Array, rows: int) -> Iterator[np.ndarray]:
    """Rows from top to bottom as PNG stores them: (rows, x, samples * bytes), uint8.

    Alpha is straight, and high bytes come first.
    """
    for y in range(0, level.shape[1], rows):
        block = image.read(level, (slice(None), slice(y, y + rows)))
        if image.alpha == "premultiplied":
            block = straight(block)
        block = np.ascontiguousarray(block.transpose(1, 2, 0))  # (c, h, w) -> (h, w, c)
        if block.dtype == np.uint16:
            block = block.astype(">u2")
        yield block.view(np.uint8)


def straight(block: np.ndarray) -> np.ndarray:
    """Colours and alpha (c, y, x) with the colours divided by alpha; 0 where alpha is 0."""
    top = np.iinfo(block.dtype).max
    alpha = np.maximum(block[-1:], 1).astype(np.uint32)
    colours = np.minimum((block[:-1].astype(np.uint32) * top + alpha // 2) // alpha, top)
    return np.concatenate([colours.astype(block.dtype), block[-1:]])


def filtered(band: np.ndarray, above: np.ndarray) -> np.ndarray:
    """A band (rows, x, bytes) with PNG filter 4 (Paeth) applied: (rows, 1 + x * bytes).

    above: the row before the band, (x, bytes); zeros before the first. Source: PNG specification
    (ISO/IEC 15948), section 9.4.
    """
    up = np.concatenate([above[None], band[:-1]])
    left, corner = (np.pad(part, ((0, 0), (1, 0), (0, 0)))[:, :-1] for part in (band, up))
    a, b, c = (part.astype(np.int16) for part in (left, up, corner))
    to_left, to_up, to_corner = np.abs(b - c), np.abs(a - c), np.abs(a + b - 2 * c)
    guess = np.where(
        (to_left <= to_up) & (to_left <= to_corner), left, np.where(to_up <= to_corner, up, corner)
    )
    rows = np.empty((len(band), 1 + band.shape[1] * band.shape[2]), np.uint8)
    rows[:, 0] = PAETH
    rows[:, 1:] = (band - guess).reshape(len(band), -1)
    return rows


def compressed(source: Iterator[np.ndarray]) -> Iterator[bytes]:
    """The zlib stream of all bands, in pieces."""
    engine = zlib.compressobj(6)
    above = None
    for band in source:
        above = np.zeros_like(band[0]) if above is None else above
        data = engine.compress(filtered(band, above).tobytes())
        above = band[-1]
        if data:
            yield data
    yield engine.flush()


def metadata_chunks(metadata: PhotoMetadata) -> bytes:
    """Profile, resolution, EXIF, XMP and IPTC as PNG chunks."""
    parts = (
        [chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(metadata.icc))] if metadata.icc else []
    )
    if metadata.srgb and not metadata.icc:
        parts.append(chunk(b"sRGB", b"\0"))
    density, unit = per_metre(metadata), 1
    if metadata.resolution and not metadata.resolution_unit:
        # Only how oblong a pixel is: whole numbers that keep the ratio.
        x, y = metadata.resolution
        density, unit = (1000 * x, 1000 * y), 0
    if density and all(0 < round(value) < 1 << 31 for value in density):
        whole = (round(density[0]), round(density[1]), unit)
        parts.append(chunk(b"pHYs", struct.pack(">IIB", *whole)))
    if metadata.exif:
        parts.append(chunk(b"eXIf", metadata.exif))
    if metadata.xmp:
        parts.append(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + metadata.xmp))
    if metadata.iptc:
        parts.append(chunk(b"zTXt", b"Raw profile type iptc\0\0" + raw_profile(metadata.iptc)))
    return b"".join(parts)


def raw_profile(datasets: bytes) -> bytes:
    """IPTC datasets as ImageMagick and exiftool write them into a PNG, which has no chunk for them.

    Among Photoshop's resources, as hexadecimal text, compressed.
    """
    block = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(datasets)) + datasets
    block += b"\0" * (len(datasets) % 2)
    digits = block.hex()
    lines = "\n".join(digits[at : at + 72] for at in range(0, len(digits), 72))
    return zlib.compress(f"\niptc\n{len(block):8}\n{lines}\n".encode())
