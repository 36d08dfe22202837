"""A TIFF says the same as the zarr it came from, to any reader."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.pipeline.output.export.sample import (
    COLOURS,
    GEO,
    ICC,
    METADATA,
    XMP,
    exported,
    stored,
    write_output,
)
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.formats.metadata import PhotoMetadata
from tierscale.pipeline.formats.registry import open_image
from tierscale.pipeline.output.export.tiff import export_tiff

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
    levels = write_output(tmp_path / "a.zarr", (COLOURS[colour], 530, 700), dtype)
    calls: list[tuple[int, int]] = []
    alpha = "straight" if colour in ("rgba", "greya") else None
    out = tmp_path / "a.tif"
    export_tiff(
        exported(tmp_path, colour, alpha=alpha),
        str(out),
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
    write_output(tmp_path / "a.zarr", (4, 40, 50))
    for alpha, kind in (("straight", 2), ("premultiplied", 1)):
        export_tiff(exported(tmp_path, "rgba", alpha=alpha), str(tmp_path / "a.tif"))
        with tifffile.TiffFile(tmp_path / "a.tif") as tif:
            assert tif.pages.first.extrasamples == (kind,)


def test_jpeg_is_close_and_only_for_what_it_can_hold(tmp_path):
    levels = write_output(tmp_path / "a.zarr", (3, 600, 700))
    export_tiff(
        exported(tmp_path, "rgb", metadata=PhotoMetadata(icc=ICC)),
        str(tmp_path / "a.tif"),
        compression="jpeg",
    )
    with open_image(tmp_path / "a.tif") as source:
        assert np.abs(source.read(0, 600, 0, 700).astype(int) - levels[0]).mean() < 6
        assert source.metadata.icc == ICC
    write_output(tmp_path / "b.zarr", (3, 20, 20), np.uint16)
    for name, colour in (("a", "channels"), ("b", "rgb")):
        with pytest.raises(Refused, match="deflate or zstd"):
            export_tiff(
                exported(tmp_path, colour, name=name), str(tmp_path / "b.tif"), compression="jpeg"
            )
    with pytest.raises(Refused, match="brotli"):
        export_tiff(exported(tmp_path, "rgb"), str(tmp_path / "b.tif"), compression="brotli")
    assert not (tmp_path / "b.tif").exists()


@pytest.mark.parametrize("big", [False, True])
def test_photo_metadata_are_in_the_tiff_for_any_reader(tmp_path, big, monkeypatch):
    if big:
        monkeypatch.setattr("tierscale.pipeline.output.export.tiff.CLASSIC_BYTES", 0)
    levels = write_output(tmp_path / "a.zarr", (3, 300, 400))
    metadata = PhotoMetadata(
        **{
            name: getattr(METADATA, name)
            for name in ("icc", "exif", "xmp", "resolution", "resolution_unit")
        },
        geo=GEO,
        nodata=0.0,
    )
    out = tmp_path / "a.tif"
    export_tiff(exported(tmp_path, "rgb", metadata=metadata), str(out))
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
    write_output(tmp_path / "a.zarr", (3, 300, 400), np.uint16)
    metadata = PhotoMetadata(
        pixel_size=(0.5, 0.25),
        pixel_unit="micrometer",
        channel_names=("DAPI", "FITC", "Cy5"),
        channel_colours=("0000FF", "00FF00", "FF0000"),
    )
    export_tiff(exported(tmp_path, "channels", metadata=metadata), str(tmp_path / "a.tif"))
    with open_image(tmp_path / "a.tif") as source:
        for name in ("pixel_size", "pixel_unit", "channel_names", "channel_colours"):
            assert getattr(source.metadata, name) == getattr(metadata, name)


def test_a_slide_keeps_its_pixel_size_as_resolution(tmp_path):
    write_output(tmp_path / "a.zarr", (3, 30, 40))
    metadata = PhotoMetadata(pixel_size=(0.5, 0.25), pixel_unit="micrometer")
    export_tiff(exported(tmp_path, "rgb", metadata=metadata), str(tmp_path / "a.tif"))
    with open_image(tmp_path / "a.tif") as source:
        assert (
            source.metadata.resolution == (40000, 20000)
            and source.metadata.resolution_unit == "centimetre"
        )


@pytest.mark.parametrize("big", [False, True])
def test_smaller_levels_are_found_both_in_the_first_page_and_behind_it(tmp_path, monkeypatch, big):
    """Some readers look only into SubIFDs, others only at the chain of pages."""
    if big:
        monkeypatch.setattr("tierscale.pipeline.output.export.tiff.CLASSIC_BYTES", 0)
    parts = write_output(tmp_path / "a.zarr", (3, 530, 700))
    metadata = PhotoMetadata(
        icc=ICC, resolution=(1200.0, 600.0), resolution_unit="inch", nodata=0.0, bits=7
    )
    export_tiff(exported(tmp_path, "rgb", metadata=metadata), str(tmp_path / "a.tif"))
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        assert tif.is_bigtiff == big and tif.is_ome and len(tif.pages) == 3
        first, *others = tif.pages
        assert first.subfiletype == 0 and first.subifds == tuple(page.offset for page in others)
        assert 'Name="a.zarr"' in first.description and "PhysicalSize" not in first.description
        assert 'SignificantBits="7"' in first.description
        for page, part in zip(tif.pages, parts, strict=True):
            np.testing.assert_array_equal(page.asarray(), stored(part, "rgb"))
            ratio = part.shape[2] / 700
            assert (page.iccprofile, page.software, page.tags[42113].value) == (
                ICC,
                "tierscale",
                "0",
            )
            assert page.resolution == pytest.approx((1200 * ratio, 600 * ratio), rel=1e-4)
        assert [page.subfiletype for page in others] == [1, 1]


def test_a_caption_stays_the_description(tmp_path):
    write_output(tmp_path / "a.zarr", (3, 530, 700))
    export_tiff(exported(tmp_path, "rgb", metadata=METADATA), str(tmp_path / "a.tif"))
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        assert tif.pages.first.description == "a caption" and len(tif.pages) == 3
        assert len(tif.series[0].levels) == 3
    with open_image(tmp_path / "a.tif") as source:
        assert source.shape == (3, 530, 700)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
@pytest.mark.parametrize("colours", [(), ("FF0000", "00FF00", "0000FF", "FFFFFF", "FFFFFF")])
def test_bands_of_a_map_are_one_page(tmp_path, dtype, colours):
    parts = write_output(tmp_path / "a.zarr", (5, 530, 700), dtype)
    metadata = PhotoMetadata(
        geo={**GEO, "GDAL_METADATA": "<GDALMetadata><!-- °C --></GDALMetadata>"},
        nodata=0.0,
        channel_colours=colours,
    )
    export_tiff(exported(tmp_path, "channels", metadata=metadata), str(tmp_path / "a.tif"))
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        assert len(tif.pages) == 3 and tif.pages.first.subifds is None and not tif.is_ome
        for page, part in zip(tif.pages, parts, strict=True):
            assert page.samplesperpixel == 5 and page.tags[42113].value == "0"
            assert page.photometric == (2 if colours else 1)
            assert page.extrasamples == (0,) * (2 if colours else 4)
            assert page.predictor == (3 if dtype == np.float32 else 2)
            np.testing.assert_array_equal(page.asarray(), part)
    with open_image(tmp_path / "a.tif") as source:
        np.testing.assert_array_equal(source.read(0, 530, 0, 700), parts[0])
        assert source.metadata.geo == metadata.geo and source.metadata.channel_colours == colours


def test_floats_of_a_microscope_have_no_predictor_that_bio_formats_lacks(tmp_path):
    write_output(tmp_path / "a.zarr", (3, 300, 400), np.float32)
    image = exported(tmp_path, "channels", metadata=PhotoMetadata(bits=12))
    export_tiff(image, str(tmp_path / "a.tif"))
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        assert {page.predictor for page in tif.pages} == {1}
        assert 'Name="a.zarr"' in tif.ome_metadata and 'SignificantBits="12"' in tif.ome_metadata
