"""What is exported says the same as the zarr it came from, to any reader, and no half file is left
under the final name.
"""

import errno
import os
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image, ImageCms

from tierscale.pipeline.errors import Damaged, Refused
from tierscale.pipeline.formats.metadata import PhotoMetadata
from tierscale.pipeline.formats.registry import open_image
from tierscale.pipeline.output.export.tiff import export_png, export_tiff

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


def exif_block() -> bytes:
    exif = Image.Exif()
    exif[274], exif[271], exif[270] = 1, "maker", "a caption"
    exif.get_ifd(0x8769)[0x9003] = "2020:01:01 00:00:00"
    exif.get_ifd(0x8769)[0x829D] = 2.75
    exif.get_ifd(0x8825)[1] = "N"
    exif.get_ifd(0x8825)[2] = (51.0, 30.0, 12.5)
    return exif.tobytes().removeprefix(b"Exif\0\0")


FACTS = PhotoMetadata(
    icc=ICC, exif=exif_block(), xmp=XMP, resolution=(1200.0, 600.0), resolution_unit="inch"
)


def made(
    path: Path, shape: tuple[int, int, int], dtype: Any = np.uint8, levels: int = 3
) -> list[np.ndarray]:
    """An output such as tierscale writes, in sharded arrays of halved sizes; gives the pixels of
    its levels.
    """
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


CASES = [
    (dtype, colour, "deflate") for dtype in (np.uint8, np.uint16, np.float32) for colour in COLOURS
]
CASES += [
    (dtype, "rgb", compression)
    for dtype in (np.uint8, np.float32)
    for compression in ("zstd", "lzw", "none")
]


@pytest.mark.parametrize(("dtype", "colour", "compression"), CASES)
def test_tiff_holds_all_levels_in_tiles(tmp_path, dtype, colour, compression):
    levels = made(tmp_path / "a.zarr", (COLOURS[colour], 530, 700), dtype)
    calls: list[tuple[int, int]] = []
    alpha = "straight" if colour in ("rgba", "greya") else None
    out = tmp_path / "a.tif"
    export_tiff(
        str(tmp_path / "a.zarr"),
        str(out),
        PhotoMetadata(),
        colour=colour,
        alpha=alpha,
        compression=compression,
        progress=lambda *c: calls.append(c),
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tif", "a.zarr"]
    assert calls[-1][0] == calls[-1][1] == len(calls)
    with tifffile.TiffFile(out) as tif:
        assert len(tif.series) == 1 and len(tif.series[0].levels) == 3
        page = tif.pages.first
        assert page.is_tiled and page.photometric == (2 if colour in ("rgb", "rgba") else 1)
        assert (page.compression == 1) == (compression == "none")
        for level, part in zip(tif.series[0].levels, levels, strict=True):
            np.testing.assert_array_equal(level.asarray(), stored(part, colour))
    with open_image(out) as source:
        assert (source.colour, source.alpha, source.random_access) == (colour, alpha, True)
        np.testing.assert_array_equal(source.read(0, 530, 0, 700), levels[0])


def test_alpha_kinds_are_told_apart(tmp_path):
    made(tmp_path / "a.zarr", (4, 40, 50))
    for alpha, kind in (("straight", 2), ("premultiplied", 1)):
        export_tiff(
            str(tmp_path / "a.zarr"),
            str(tmp_path / "a.tif"),
            PhotoMetadata(),
            colour="rgba",
            alpha=alpha,
        )
        with tifffile.TiffFile(tmp_path / "a.tif") as tif:
            assert tif.pages.first.extrasamples == (kind,)


def test_jpeg_is_close_and_only_for_what_it_can_hold(tmp_path):
    levels = made(tmp_path / "a.zarr", (3, 600, 700))
    export_tiff(
        str(tmp_path / "a.zarr"),
        str(tmp_path / "a.tif"),
        PhotoMetadata(icc=ICC),
        colour="rgb",
        alpha=None,
        compression="jpeg",
    )
    with open_image(tmp_path / "a.tif") as source:
        assert np.abs(source.read(0, 600, 0, 700).astype(int) - levels[0]).mean() < 6
        assert source.metadata.icc == ICC
    made(tmp_path / "b.zarr", (3, 20, 20), np.uint16)
    for name, colour in (("a", "channels"), ("b", "rgb")):
        with pytest.raises(Refused, match="deflate or zstd"):
            export_tiff(
                str(tmp_path / f"{name}.zarr"),
                str(tmp_path / "b.tif"),
                PhotoMetadata(),
                colour=colour,
                alpha=None,
                compression="jpeg",
            )
    with pytest.raises(Refused, match="brotli"):
        export_tiff(
            str(tmp_path / "a.zarr"),
            str(tmp_path / "b.tif"),
            PhotoMetadata(),
            colour="rgb",
            alpha=None,
            compression="brotli",
        )
    assert not (tmp_path / "b.tif").exists()


@pytest.mark.parametrize("big", [False, True])
def test_photo_facts_are_in_the_tiff_for_any_reader(tmp_path, big, monkeypatch):
    if big:
        monkeypatch.setattr("tierscale.pipeline.output.export.tiff.CLASSIC_BYTES", 0)
    levels = made(tmp_path / "a.zarr", (3, 300, 400))
    facts = PhotoMetadata(
        **{
            name: getattr(FACTS, name)
            for name in ("icc", "exif", "xmp", "resolution", "resolution_unit")
        },
        geo=GEO,
        nodata=0.0,
    )
    out = tmp_path / "a.tif"
    export_tiff(str(tmp_path / "a.zarr"), str(out), facts, colour="rgb", alpha=None)
    with tifffile.TiffFile(out) as tif:
        assert tif.is_bigtiff == big
        page = tif.pages.first
        codes = [tag.code for tag in page.tags]
        assert codes == sorted(codes) and page.iccprofile == ICC and page.tags[700].value == XMP
        assert page.tags[33550].value == tuple(GEO["ModelPixelScale"]) and page.tags[
            34735
        ].value == tuple(GEO["GeoKeyDirectory"])
        assert (
            page.tags[42113].value == "0"
            and page.description == "a caption"
            and page.resolutionunit == 2
        )
        assert page.tags["ExifTag"].value["DateTimeOriginal"] == "2020:01:01 00:00:00"
        assert page.tags["GPSTag"].value["GPSLatitudeRef"] == "N"
        np.testing.assert_array_equal(page.asarray(), stored(levels[0], "rgb"))
    with Image.open(out) as image:
        exif = image.getexif()
        assert (
            exif[271] == "maker"
            and exif.get_ifd(0x8769)[0x9003] == "2020:01:01 00:00:00"
            and exif.get_ifd(0x8769)[0x829D] == 2.75
        )
        assert (
            exif.get_ifd(0x8825)[2] == (51.0, 30.0, 12.5)
            and image.info["icc_profile"] == ICC
            and image.info["dpi"] == (1200, 600)
        )
    with open_image(out) as source:
        assert (
            source.metadata.icc,
            source.metadata.xmp,
            source.metadata.resolution,
            source.metadata.nodata,
        ) == (ICC, XMP, (1200, 600), 0)
        assert source.metadata.geo == GEO


def test_channels_keep_names_colours_and_pixel_size(tmp_path):
    made(tmp_path / "a.zarr", (3, 300, 400), np.uint16)
    facts = PhotoMetadata(
        pixel_size=(0.5, 0.25),
        pixel_unit="micrometer",
        channel_names=("DAPI", "FITC", "Cy5"),
        channel_colours=("0000FF", "00FF00", "FF0000"),
    )
    export_tiff(
        str(tmp_path / "a.zarr"), str(tmp_path / "a.tif"), facts, colour="channels", alpha=None
    )
    with open_image(tmp_path / "a.tif") as source:
        for name in ("pixel_size", "pixel_unit", "channel_names", "channel_colours"):
            assert getattr(source.metadata, name) == getattr(facts, name)


def test_a_slide_keeps_its_pixel_size_as_resolution(tmp_path):
    made(tmp_path / "a.zarr", (3, 30, 40))
    facts = PhotoMetadata(pixel_size=(0.5, 0.25), pixel_unit="micrometer")
    export_tiff(str(tmp_path / "a.zarr"), str(tmp_path / "a.tif"), facts, colour="rgb", alpha=None)
    with open_image(tmp_path / "a.tif") as source:
        assert (
            source.metadata.resolution == (40000, 20000)
            and source.metadata.resolution_unit == "centimetre"
        )


@pytest.mark.parametrize("kind", ["tif", "png"])
def test_a_failed_export_leaves_what_was_there(tmp_path, kind):
    made(tmp_path / "a.zarr", (3, 600, 700))
    shard = next(
        path for path in sorted((tmp_path / "a.zarr" / "0" / "c").rglob("*")) if path.is_file()
    )
    shard.write_bytes(shard.read_bytes()[:50])
    out = tmp_path / f"a.{kind}"
    out.write_text("before")
    with pytest.raises(Damaged, match=r"a\.zarr"):
        if kind == "tif":
            export_tiff(
                str(tmp_path / "a.zarr"), str(out), PhotoMetadata(), colour="rgb", alpha=None
            )
        else:
            export_png(
                str(tmp_path / "a.zarr"), str(out), PhotoMetadata(), colour="rgb", max_bytes=1 << 30
            )
    assert out.read_text() == "before" and sorted(
        path.name for path in tmp_path.iterdir()
    ) == sorted(["a.zarr", out.name])


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, Damaged), (errno.EROFS, Refused)])
def test_an_export_that_cannot_be_written_says_so_and_leaves_nothing(
    tmp_path, monkeypatch, number, kind
):
    def replace(part, out):
        raise OSError(number, os.strerror(number))

    made(tmp_path / "a.zarr", (3, 20, 20))
    monkeypatch.setattr("tierscale.pipeline.output.export.common.os.replace", replace)
    with pytest.raises(kind, match=r"a\.png:? .*cannot be written"):
        export_png(
            str(tmp_path / "a.zarr"),
            str(tmp_path / "a.png"),
            PhotoMetadata(),
            colour="rgb",
            max_bytes=1 << 30,
        )
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]


def test_what_is_no_output_is_refused(tmp_path):
    with pytest.raises(Refused, match="no OME-Zarr"):
        export_tiff(
            str(tmp_path / "none.zarr"),
            str(tmp_path / "a.tif"),
            PhotoMetadata(),
            colour="rgb",
            alpha=None,
        )
    assert not list(tmp_path.iterdir())


def test_export_works_in_bounded_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("tierscale.pipeline.output.export.tiff.BLOCK_BYTES", 1 << 20)
    made(tmp_path / "a.zarr", (3, 6000, 1000), levels=1)
    allowed = 20 * 100 * 3000
    for kind in ("tif", "png"):
        tracemalloc.start()
        if kind == "tif":
            export_tiff(
                str(tmp_path / "a.zarr"),
                str(tmp_path / "a.tif"),
                PhotoMetadata(),
                colour="rgb",
                alpha=None,
            )
        else:
            export_png(
                str(tmp_path / "a.zarr"),
                str(tmp_path / "a.png"),
                PhotoMetadata(),
                colour="rgb",
                max_bytes=allowed,
            )
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < (allowed + (2 << 20) if kind == "png" else 3 * 6000 * 1000 * 0.6), kind


# PNG


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("colour", ["grey", "greya", "rgb", "rgba"])
def test_png_holds_every_pixel(tmp_path, dtype, colour):
    levels = made(tmp_path / "a.zarr", (COLOURS[colour], 130, 170), dtype)
    calls: list[tuple[int, int]] = []
    row = COLOURS[colour] * 170 * np.dtype(dtype).itemsize
    export_png(
        str(tmp_path / "a.zarr"),
        str(tmp_path / "a.png"),
        FACTS,
        colour=colour,
        max_bytes=20 * 37 * row,
        progress=lambda *c: calls.append(c),
    )
    assert calls[-1] == (4, 4)
    with open_image(tmp_path / "a.png") as source:
        assert source.colour == colour
        np.testing.assert_array_equal(source.read(0, 130, 0, 170), levels[0])
        assert (source.metadata.icc, source.metadata.xmp, source.metadata.exif) == (ICC, XMP, FACTS.exif)
        assert source.metadata.resolution == pytest.approx((1200 / 2.54, 600 / 2.54), abs=0.01)
    with Image.open(tmp_path / "a.png") as image:
        image.load()
        if dtype == np.uint8:
            np.testing.assert_array_equal(np.asarray(image), stored(levels[0], colour))
        assert (
            image.info["icc_profile"] == ICC
            and image.getexif()[271] == "maker"
            and round(image.info["dpi"][0]) == 1200
        )


def test_premultiplied_colours_are_divided_for_png(tmp_path):
    group = zarr.open_group(
        str(tmp_path / "a.zarr"),
        mode="w",
        attributes={"ome": {"multiscales": [{"datasets": [{"path": "0"}]}]}},
    )
    pixels = np.array(
        [[[100, 0, 50]], [[50, 0, 50]], [[0, 0, 50]], [[100, 0, 255]]], dtype=np.uint8
    )
    group.create_array("0", data=pixels)
    export_png(
        str(tmp_path / "a.zarr"),
        str(tmp_path / "a.png"),
        PhotoMetadata(),
        colour="rgba",
        alpha="premultiplied",
        max_bytes=1 << 20,
    )
    with open_image(tmp_path / "a.png") as source:
        assert source.read(0, 1, 0, 3)[:, 0].T.tolist() == [
            [255, 128, 0, 100],
            [0, 0, 0, 0],
            [50, 50, 50, 255],
        ]


REFUSED = [
    ((1, 9, 9), np.float32, "grey", 1 << 20),
    ((2, 9, 9), np.uint8, "channels", 1 << 20),
    ((3, 9, 999), np.uint8, "rgb", 50000),
]


@pytest.mark.parametrize(("shape", "dtype", "colour", "allowed"), REFUSED)
def test_what_png_cannot_hold_is_refused_naming_tiff(tmp_path, shape, dtype, colour, allowed):
    made(tmp_path / "a.zarr", shape, dtype)
    with pytest.raises(Refused, match="TIFF"):
        export_png(
            str(tmp_path / "a.zarr"),
            str(tmp_path / "a.png"),
            PhotoMetadata(),
            colour=colour,
            max_bytes=allowed,
        )
    assert not (tmp_path / "a.png").exists()


def test_png_of_one_pixel_by_hand(tmp_path):
    group = zarr.open_group(
        str(tmp_path / "a.zarr"),
        mode="w",
        attributes={"ome": {"multiscales": [{"datasets": [{"path": "0"}]}]}},
    )
    group.create_array("0", data=np.full((1, 1, 1), 7, np.uint8))
    export_png(
        str(tmp_path / "a.zarr"),
        str(tmp_path / "a.png"),
        PhotoMetadata(),
        colour="grey",
        max_bytes=1 << 20,
    )
    data = (tmp_path / "a.png").read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n" and struct.unpack(">IIBBBBB", data[16:29]) == (
        1,
        1,
        8,
        0,
        0,
        0,
        0,
    )
    assert data.endswith(b"IEND\xaeB`\x82")
