"""Pictures to write, and checks of what is read; shared by the tests of formats."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tierscale.pipeline.formats.png.reader import PASSES
from tierscale.pipeline.formats.png.stream import SIGNATURE, chunk
from tierscale.pipeline.formats.registry import Source, open_image

# Ways to write the same TIFF.
LAYOUTS: dict[str, dict[str, Any]] = {
    "tiles": {"tile": (32, 48), "compression": "zlib", "predictor": True},
    "strips": {"rowsperstrip": 7, "compression": "lzw"},
    "one strip": {"rowsperstrip": 101, "compression": "zstd"},
    "flat": {},
    "flat strips": {"rowsperstrip": 10},
    "tiles, flat": {"tile": (16, 16)},
}


def picture(
    height: int, width: int, samples: int = 3, dtype: Any = np.uint8, seed: int = 0
) -> np.ndarray:
    """Smooth and noisy parts, (y, x, samples)."""
    rng = np.random.default_rng(seed)
    ramp = (
        np.linspace(0, 1, width)[None, :, None]
        * np.linspace(0.2, 1, height)[:, None, None]
        * np.linspace(1, 0.5, samples)
    )
    values = np.clip(ramp + rng.normal(0, 0.05, (height, width, samples)), 0, 1)
    return (values * (np.iinfo(dtype).max if np.dtype(dtype).kind == "u" else 1)).astype(dtype)


def whole(source: Source) -> np.ndarray:
    """Everything, through strips; checks that they cover every row once and are what is
    promised.
    """
    rows = []
    for y, strip in source.strips():
        assert y == sum(part.shape[1] for part in rows)
        assert strip.dtype == source.dtype and strip.dtype.isnative and strip.flags.c_contiguous
        rows.append(strip.copy())
    out = np.concatenate(rows, axis=1)
    assert out.shape == source.shape
    return out


def check(path: Any, expected: np.ndarray, **wanted: Any) -> None:
    """The file holds `expected` (c, y, x), by strips and by windows, and is described as wanted."""
    with open_image(path) as source:
        assert source.shape == expected.shape and source.dtype == expected.dtype
        np.testing.assert_array_equal(whole(source), expected)
        _, height, width = source.shape
        for window in (
            (0, height, 0, width),
            (height // 3, height // 2 + 1, width // 4, width - 1),
            (height - 1, height, width - 1, width),
        ):
            y0, y1, x0, x1 = window
            part = source.read(y0, y1, x0, x1)
            assert part.flags.c_contiguous and part.dtype == source.dtype
            np.testing.assert_array_equal(part, expected[:, y0:y1, x0:x1])
        for name, value in wanted.items():
            assert getattr(source, name) == value, name


def exif_of(block: bytes) -> Image.Exif:
    """An EXIF block without its mark, as Pillow reads it."""
    exif = Image.Exif()
    exif.load(b"Exif\0\0" + block)
    return exif


def filtered_png(rows: np.ndarray, pixel: int, seed: int) -> bytes:
    """PNG rows (y, bytes) with a random filter each, as the specification defines them."""
    rng, out, above = np.random.default_rng(seed), b"", np.zeros(rows.shape[1], int)
    for row in rows.astype(int):
        kind = int(rng.integers(0, 5))
        left = np.concatenate([np.zeros(pixel, int), row])[: len(row)]
        corner = np.concatenate([np.zeros(pixel, int), above])[: len(row)]
        near = left + above - corner
        to = np.stack([abs(near - left), abs(near - above), abs(near - corner)])
        paeth = np.choose(to.argmin(axis=0), [left, above, corner])
        guess = [np.zeros_like(row), left, above, (left + above) // 2, paeth][kind]
        out += bytes([kind]) + ((row - guess) % 256).astype(np.uint8).tobytes()
        above = row
    return out


def packed(samples: np.ndarray, depth: int) -> np.ndarray:
    """Samples (y, x, s) as PNG rows (y, bytes)."""
    height = samples.shape[0]
    if depth >= 8:
        return samples.astype(f">u{depth // 8}").reshape(height, -1).view(np.uint8)
    bits = np.unpackbits(samples.astype(np.uint8)[..., None], axis=-1)[..., 8 - depth :]
    return np.packbits(bits.reshape(height, -1), axis=-1)


def write_png(
    path: Path,
    samples: np.ndarray,
    kind: int,
    depth: int,
    interlaced: bool,
    extra: bytes = b"",
    seed: int = 0,
) -> None:
    """A PNG of the given samples, with IDAT chunks of 50 bytes."""
    pixel = max(1, depth * samples.shape[2] // 8)
    parts = [samples[y::dy, x::dx] for y, x, dy, dx in PASSES] if interlaced else [samples]
    data = zlib.compress(
        b"".join(filtered_png(packed(part, depth), pixel, seed) for part in parts if part.size)
    )
    header = struct.pack(
        ">IIBBBBB", samples.shape[1], samples.shape[0], depth, kind, 0, 0, int(interlaced)
    )
    pieces = b"".join(chunk(b"IDAT", data[i : i + 50]) for i in range(0, len(data), 50))
    path.write_bytes(SIGNATURE + chunk(b"IHDR", header) + extra + pieces + chunk(b"IEND", b""))
