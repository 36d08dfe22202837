"""Small sources of every format for the golden runs, from seeded numbers and plain arithmetic.

Each maker writes one source into a folder and gives its path. Nothing here uses sine, exponent or
a normal distribution, whose last bit another processor or another numpy may give otherwise.
"""

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
import zarr
from PIL import Image

# Rows and columns of the seven passes of an interlaced PNG: first row, first column, and the steps.
ADAM7 = (
    (0, 0, 8, 8),
    (0, 4, 8, 8),
    (4, 0, 8, 4),
    (0, 2, 4, 4),
    (2, 0, 4, 2),
    (0, 1, 2, 2),
    (1, 0, 2, 1),
)
NODATA = -9999.0


def scene(height: int, width: int, channels: int, seed: int = 0) -> np.ndarray:
    """Values 0..1, (y, x, channels), in tiles of all kinds of difficulty.

    From left to right it is flat, smooth, full of edges, and noisy.
    """
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(np.float64)
    smooth = 0.2 + 0.5 * x / width + 0.2 * y / height
    edges = 0.15 + 0.7 * ((3 * x + 2 * y + seed) // 17 % 2) - 0.1 * (y // 5 % 2)
    noise = 0.5 * smooth + 0.5 * rng.random((height, width))
    part = 20 * x // width
    grey = np.select([part < 7, part < 11, part < 15], [np.full_like(x, 0.4), smooth, edges], noise)
    weights = np.linspace(1.0, 0.55, channels) if channels > 1 else np.ones(1)
    return np.clip(grey[..., None] * weights + (1 - weights) * 0.3, 0, 1)


def pixels(
    height: int,
    width: int,
    channels: int,
    dtype: Any = np.uint8,
    seed: int = 0,
) -> np.ndarray:
    """The scene as whole numbers of a type, (y, x, channels)."""
    top = np.iinfo(dtype).max
    return np.floor(scene(height, width, channels, seed) * top + 0.5).astype(dtype)


# TIFF


def tiled_tiff(folder: Path) -> Path:
    """8-bit RGB in compressed tiles; wide enough for two pyramid levels at x4."""
    path = folder / "tiled.tif"
    image = pixels(72, 264, 3)
    tifffile.imwrite(
        path,
        image,
        photometric="rgb",
        tile=(32, 48),
        compression="zlib",
        predictor=True,
    )
    return path


def strip_tiff(folder: Path) -> Path:
    """8-bit RGB in LZW strips, which are not random access."""
    path = folder / "strips.tif"
    image = pixels(101, 177, 3, seed=1)
    tifffile.imwrite(path, image, photometric="rgb", rowsperstrip=7, compression="lzw")
    return path


def planar_tiff(folder: Path) -> Path:
    """8-bit RGB, a plane for each colour."""
    path = folder / "planar.tif"
    image = pixels(90, 190, 3, seed=2).transpose(2, 0, 1)
    tifffile.imwrite(
        path,
        image,
        photometric="rgb",
        planarconfig="separate",
        rowsperstrip=10,
        metadata=None,
    )
    return path


def big_tiff(folder: Path) -> Path:
    """16-bit RGB in a big-endian BigTIFF."""
    path = folder / "big.tif"
    image = pixels(80, 180, 3, np.uint16, seed=3)
    tifffile.imwrite(
        path,
        image,
        photometric="rgb",
        bigtiff=True,
        byteorder=">",
        tile=(32, 32),
        compression="zstd",
    )
    return path


def ome_tiff(folder: Path) -> Path:
    """Five channels of 12 bits in an OME-TIFF with three planes; --z 1 asks for the second."""
    path = folder / "five.ome.tif"
    stack = np.stack([_counts(60, 176, 5, seed) for seed in range(3)], axis=1)
    size = {
        "PhysicalSizeX": 0.5,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": 0.5,
        "PhysicalSizeYUnit": "µm",
    }
    tifffile.imwrite(path, stack, photometric="minisblack", metadata={"axes": "CZYX", **size})
    return path


def three_channel_tiff(folder: Path) -> Path:
    """Three channels that are not red, green and blue, of 16 bits with different ranges."""
    path = folder / "three.tif"
    tifffile.imwrite(path, _counts(70, 200, 3), photometric="minisblack", metadata={"axes": "CYX"})
    return path


def _counts(height: int, width: int, channels: int, seed: int = 0) -> np.ndarray:
    """Counts of a detector, (c, y, x), each channel with a range of its own below 4096."""
    low = 40.0 * np.arange(1, channels + 1)
    values = low + scene(height, width, channels, seed) * (3900 - 500 * np.arange(channels))
    return np.floor(values).astype(np.uint16).transpose(2, 0, 1)


def alpha_tiff(folder: Path) -> Path:
    """16-bit RGB with premultiplied alpha, part of it clear; two pyramid levels at x4."""
    path = folder / "alpha.tif"
    image = pixels(64, 260, 4, np.uint16, seed=4).astype(np.uint32)
    image[..., 3] = np.where(image[..., 0] > 30000, 65535, image[..., 0] * 2)
    image[10:30, 20:60, 3] = 0
    image[..., :3] = image[..., :3] * image[..., 3:] // 65535
    tifffile.imwrite(
        path,
        image.astype(np.uint16),
        photometric="rgb",
        extrasamples=["assocalpha"],
        tile=(64, 64),
    )
    return path


def geo_tiff(folder: Path) -> Path:
    """Float heights with georeference and holes as GDAL declares them; two pyramid levels at x4."""
    path = folder / "heights.tif"
    image = (100 + 900 * scene(66, 270, 1, seed=5)[..., 0]).astype(np.float32)
    image[20:33, 40:70] = NODATA
    image[:, 200:203] = NODATA
    tags = [
        (33550, "d", 3, (10.0, 10.0, 0.0), True),
        (33922, "d", 6, (0.0, 0.0, 0.0, 500000.0, 5400000.0, 0.0), True),
        (34735, "H", 8, (1, 1, 0, 1, 1025, 0, 1, 1), True),
        (42113, "s", 0, "-9999", True),
    ]
    tifffile.imwrite(path, image, tile=(32, 32), compression="zlib", extratags=tags, metadata=None)
    return path


def masked_tiff(folder: Path) -> Path:
    """16-bit grey with holes of 0 that only --nodata 0 tells of."""
    path = folder / "masked.tif"
    image = 500 + pixels(75, 185, 1, np.uint16, seed=6)[..., 0] // 2
    image[30:50, 20:45] = 0
    tifffile.imwrite(path, image.astype(np.uint16), photometric="minisblack", rowsperstrip=16)
    return path


# photos


def png_8(folder: Path) -> Path:
    """8-bit RGB PNG."""
    path = folder / "eight.png"
    Image.fromarray(pixels(64, 192, 3, seed=7)).save(path, dpi=(300, 300))
    return path


def png_16(folder: Path) -> Path:
    """16-bit RGB PNG; two pyramid levels at x4."""
    path = folder / "sixteen.png"
    path.write_bytes(imagecodecs.png_encode(pixels(64, 258, 3, np.uint16, seed=8)))
    return path


def grey_png(folder: Path) -> Path:
    """8-bit grey PNG."""
    path = folder / "grey.png"
    Image.fromarray(pixels(96, 196, 1, seed=9)[..., 0]).save(path)
    return path


def interlaced_png(folder: Path) -> Path:
    """8-bit RGB PNG in the seven passes of Adam7."""
    path = folder / "interlaced.png"
    image = pixels(70, 61, 3, seed=10)
    passes = [image[y::dy, x::dx] for y, x, dy, dx in ADAM7]
    rows = b"".join(b"\0" + row.tobytes() for part in passes for row in part)
    header = struct.pack(">IIBBBBB", image.shape[1], image.shape[0], 8, 2, 0, 0, 1)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks))
    return path


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def palette_png(folder: Path) -> Path:
    """PNG of 64 colours, one of them clear."""
    path = folder / "palette.png"
    indices = pixels(66, 172, 1, seed=11)[..., 0] // 4
    image = Image.frombytes("P", (172, 66), indices.tobytes())
    image.putpalette([value for i in range(64) for value in (4 * i, 255 - 3 * i, (7 * i) % 256)])
    image.save(path, transparency=20)
    return path


def jpeg(folder: Path) -> Path:
    """JPEG of 4:2:0."""
    path = folder / "photo.jpg"
    Image.fromarray(pixels(80, 200, 3, seed=12)).save(path, quality=90, subsampling=2)
    return path


def turned_jpeg(folder: Path) -> Path:
    """JPEG that its EXIF turns by a quarter (orientation 6)."""
    path = folder / "turned.jpg"
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(pixels(90, 200, 3, seed=13)).save(path, quality=92, subsampling=0, exif=exif)
    return path


def webp(folder: Path) -> Path:
    """Lossless WebP with alpha."""
    path = folder / "photo.webp"
    image = pixels(62, 174, 4, seed=14)
    image[:, :20, 3] = 255
    image[:9, :9, 3] = 0
    Image.fromarray(image).save(path, lossless=True, exact=True)
    return path


def jpeg_2000(folder: Path) -> Path:
    """Lossless JPEG 2000, 8-bit RGB."""
    path = folder / "photo.jp2"
    Image.fromarray(pixels(64, 188, 3, seed=15)).save(path, irreversible=False)
    return path


def pgm(folder: Path) -> Path:
    """Netpbm grey map, raw, 8 bits."""
    path = folder / "grey.pgm"
    image = pixels(84, 66, 1, seed=16)[..., 0]
    path.write_bytes(b"P5\n66 84\n255\n" + image.tobytes())
    return path


# arrays


def float_npy(folder: Path) -> Path:
    """Float32 grey with NaN holes; two pyramid levels at x4."""
    path = folder / "float.npy"
    image = (scene(60, 264, 1, seed=17)[..., 0] * 3 - 1).astype(np.float32)
    image[12:20, 30:44] = np.nan
    np.save(path, image)
    return path


def zarr_2(folder: Path) -> Path:
    """Zarr v2 array (y, x) of 16 bits."""
    path = folder / "two.zarr"
    image = pixels(72, 190, 1, np.uint16, seed=18)[..., 0]
    array = zarr.create_array(
        str(path),
        shape=image.shape,
        chunks=(32, 32),
        dtype=image.dtype,
        zarr_format=2,
    )
    array[:] = image
    return path


def zarr_3(folder: Path) -> Path:
    """Zarr v3 array (c, y, x), sharded, RGB of 8 bits."""
    path = folder / "three.zarr"
    image = pixels(64, 200, 3, seed=19).transpose(2, 0, 1)
    array = zarr.create_array(
        str(path),
        shape=image.shape,
        chunks=(3, 16, 16),
        shards=(3, 32, 32),
        dtype=image.dtype,
        zarr_format=3,
    )
    array[:] = image
    return path


def ome_zarr(folder: Path) -> Path:
    """OME-Zarr 0.5 of axes tczyx, two channels of 16 bits, with two levels, and two at x4."""
    path = folder / "ome.zarr"
    image = _counts(40, 260, 2)[None, :, None]
    kinds = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}
    axes: list[dict[str, str]] = [{"name": name, "type": kind} for name, kind in kinds.items()]
    scales: Sequence[list[float]] = ([1, 1, 1, 0.5, 0.25], [1, 1, 1, 1, 0.5])
    datasets: list[dict[str, Any]] = []
    for level, scale in enumerate(scales):
        transformation = {"type": "scale", "scale": scale}
        datasets.append({"path": str(level), "coordinateTransformations": [transformation]})
    ome: dict[str, Any] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    group = zarr.open_group(str(path), mode="w", zarr_format=3, attributes={"ome": ome})
    for level in range(2):
        part = image[..., :: 2**level, :: 2**level]
        group.create_array(
            str(level),
            shape=part.shape,
            chunks=(1, 1, 1, 16, 16),
            dtype=part.dtype,
        )[:] = part
    return path


# several


def folder_of_three(folder: Path) -> Path:
    """A folder with three images of different formats, one of them deeper."""
    root = folder / "images"
    (root / "deep").mkdir(parents=True)
    Image.fromarray(pixels(60, 170, 3, seed=20)).save(root / "a.png")
    tifffile.imwrite(root / "b.tif", pixels(66, 161, 3, seed=21), photometric="rgb", tile=(32, 32))
    np.save(root / "deep/c.npy", pixels(62, 180, 3, seed=22).transpose(2, 0, 1))
    return root
