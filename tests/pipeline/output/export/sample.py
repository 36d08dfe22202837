"""Outputs to export, and what is exported of them."""

from pathlib import Path
from typing import Any

import numpy as np
import zarr
from PIL import Image, ImageCms

from tierscale.pipeline.formats.blocks.exif import exif_facts
from tierscale.pipeline.formats.metadata import PhotoMetadata
from tierscale.pipeline.output.export.common import Exported

ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"></x:xmpmeta>'
GEO = {
    "ModelPixelScale": [2.5, 2.5, 0.0],
    "ModelTiepoint": [0.0, 0.0, 0.0, 100.0, 200.0, 0.0],
    "GeoKeyDirectory": [1, 1, 0, 1, 1025, 0, 1, 1],
    "GDAL_METADATA": "<GDALMetadata></GDALMetadata>",
    "GDAL_NODATA": "0",
}
COLOURS = {"grey": 1, "greya": 2, "rgb": 3, "rgba": 4, "channels": 3}


def exif_block() -> bytes | None:
    exif = Image.Exif()
    exif[274], exif[271], exif[270] = 1, "maker", "a caption"
    exif.get_ifd(0x8769)[0x9003] = "2020:01:01 00:00:00"
    exif.get_ifd(0x8769)[0x829D] = 2.75
    exif.get_ifd(0x8825)[1] = "N"
    exif.get_ifd(0x8825)[2] = (51.0, 30.0, 12.5)
    return exif_facts(exif.tobytes()).block


METADATA = PhotoMetadata(
    icc=ICC, exif=exif_block(), xmp=XMP, resolution=(1200.0, 600.0), resolution_unit="inch"
)


def write_output(
    path: Path, shape: tuple[int, int, int], dtype: Any = np.uint8, levels: int = 3
) -> list[np.ndarray]:
    """Write an output in sharded arrays of halved sizes; the pixels of its levels."""
    rng = np.random.default_rng(0)
    pixels = np.linspace(0.1, 0.9, shape[2])[None, None] * np.ones(shape) + rng.normal(
        0, 0.03, shape
    )
    pixels = np.clip(
        pixels * (np.iinfo(dtype).max if np.dtype(dtype).kind == "u" else 1), 0, None
    ).astype(dtype)
    entries = [{"path": str(i)} for i in range(levels)]
    group = zarr.open_group(
        str(path),
        mode="w",
        attributes={"ome": {"version": "0.5", "multiscales": [{"datasets": entries}]}},
    )
    parts = [pixels[:, :: 2**i, :: 2**i] for i in range(levels)]
    for i, part in enumerate(parts):
        array = group.create_array(
            str(i),
            shape=part.shape,
            chunks=(shape[0], 100, 120),
            shards=(shape[0], 200, 240),
            dtype=dtype,
        )
        array[:] = part
    return parts


def stored(part: np.ndarray, colour: str) -> np.ndarray:
    """(c, y, x) as tifffile gives it back."""
    return part if colour == "channels" else part[0] if len(part) == 1 else part.transpose(1, 2, 0)


# The metadata of an image of which nothing is known.
UNKNOWN = PhotoMetadata()


def exported(
    folder: Path,
    colour: str,
    *,
    name: str = "a",
    alpha: str | None = None,
    metadata: PhotoMetadata = UNKNOWN,
) -> Exported:
    """The output NAME.zarr in a folder, as exports take it."""
    return Exported(str(folder / f"{name}.zarr"), colour, alpha, metadata)
