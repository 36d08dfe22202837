"""Tiles and strips that were never written are filled and counted; empty ones are damage."""

import struct

import numpy as np
import pytest
import tifffile

from tests.pipeline.formats.pictures import picture, whole
from tierscale.pipeline.errors import Damaged
from tierscale.pipeline.formats.registry import open_image

APERIO = "Aperio Image Library v1\n96x64 (32x32) JPEG|AppMag = 20|MPP = 0.5"
PHILIPS = (
    '<?xml version="1.0" encoding="UTF-8" ?><DataObject ObjectType="DPUfsImport">'
    '<Attribute Name="DICOM_PIXEL_SPACING" Group="0x0028" Element="0x0030" PMSVR="IDoubleArray">'
    "&quot;0.0005&quot; &quot;0.00025&quot;</Attribute></DataObject>"
)


def write(path, pixels, *, gone=(2, 3), keep_offset=False, **options):
    """A TIFF of which some tiles or strips have the length 0, and the offset 0 too."""
    rgb = {"photometric": "rgb"} if pixels.ndim == 3 else {"photometric": "minisblack"}
    tifffile.imwrite(path, pixels, metadata=None, **{**rgb, **options})
    with tifffile.TiffFile(path) as tif:
        tags = tif.pages.first.tags
        pairs = [(324, 325)] if 324 in tags else [(273, 279)]
        for offsets, counts in pairs:
            listed = [list(tags[code].value) for code in (offsets, counts)]
            for number in gone:
                listed[1][number] = 0
                listed[0][number] = listed[0][number] if keep_offset else 0
            places = [(tags[code].valueoffset, tags[code].dtype) for code in (offsets, counts)]
    with open(path, "r+b") as file:
        for values, (place, kind) in zip(listed, places, strict=True):
            file.seek(place)
            file.write(struct.pack(f"<{len(values)}{'H' if kind == 3 else 'I'}", *values))


LAYOUTS = {
    "tiles": {"tile": (32, 48), "compression": "zlib"},
    "strips": {"rowsperstrip": 16, "compression": "zlib"},
    "plain strips": {"rowsperstrip": 16},
    "plain tiles": {"tile": (32, 48)},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_was_never_written_is_0_and_counted(tmp_path, layout):
    pixels = picture(64, 96)
    write(tmp_path / "a.tif", pixels, **LAYOUTS[layout])
    expected = pixels.copy()
    expected[32:] = 0
    with open_image(tmp_path / "a.tif") as source:
        np.testing.assert_array_equal(whole(source), expected.transpose(2, 0, 1))
        kind = "tiles" if "tiles" in layout else "strips"
        assert source.notes == (f"2 of 4 {kind} were never written; they are filled with 0",)


def test_no_data_goes_before_0(tmp_path):
    pixels = picture(64, 96, 1, np.float32)[..., 0]
    nodata = [(42113, "s", 0, "-9999", True)]
    write(tmp_path / "a.tif", pixels, **LAYOUTS["tiles"], extratags=nodata)
    with open_image(tmp_path / "a.tif") as source:
        assert (whole(source)[:, 32:] == -9999).all() and "no-data value -9999" in source.notes[0]


def test_no_data_that_the_type_cannot_hold_fills_nothing(tmp_path):
    nodata = [(42113, "s", 0, "-9999", True)]
    write(tmp_path / "a.tif", picture(64, 96), **LAYOUTS["tiles"], extratags=nodata)
    with open_image(tmp_path / "a.tif") as source:
        assert (whole(source)[:, 32:] == 0).all() and "filled with 0" in source.notes[0]


@pytest.mark.parametrize("maker", [{"description": APERIO}, {"description": PHILIPS}])
def test_a_slide_is_white_where_nothing_was_scanned(tmp_path, maker):
    if maker["description"] == PHILIPS:
        maker = {**maker, "software": "Philips DP v1.0"}
    write(tmp_path / "a.svs", picture(64, 96), tile=(32, 48), compression="jpeg", **maker)
    with open_image(tmp_path / "a.svs") as source:
        assert (whole(source)[:, 32:] == 255).all() and (whole(source)[:, :32] < 255).any()
        assert "2 of 4 tiles were never written; they are white" in source.notes


def test_planes_of_their_own_are_filled_each(tmp_path):
    pixels = picture(64, 96).transpose(2, 0, 1)
    write(
        tmp_path / "a.tif", np.ascontiguousarray(pixels), gone=(7,), planarconfig="separate",
        photometric="rgb", tile=(32, 48), compression="zlib",
    )  # fmt: skip
    with open_image(tmp_path / "a.tif") as source:
        found = whole(source)
        assert source.notes == ("1 of 12 tiles were never written; they are filled with 0",)
    np.testing.assert_array_equal(found[[0, 2]], pixels[[0, 2]])
    assert (found[1, 32:, 48:] == 0).all() and (found[1, :32] == pixels[1, :32]).all()


def test_a_tile_with_a_place_and_no_bytes_is_damage(tmp_path):
    write(tmp_path / "a.tif", picture(64, 96), keep_offset=True, **LAYOUTS["tiles"])
    with (
        pytest.raises(Damaged, match=r"tile 2 .* is empty"),
        open_image(tmp_path / "a.tif") as file,
    ):
        whole(file)


@pytest.mark.parametrize("layout", ["plain strips", "plain tiles", "one strip"])
@pytest.mark.parametrize("bits", [8, 16])
def test_lengths_that_are_stated_as_0_are_counted_from_the_size(tmp_path, layout, bits):
    pixels = picture(61, 96, 3, np.dtype(f"u{bits // 8}"))
    options = LAYOUTS.get(layout, {"rowsperstrip": 61})
    count = {"one strip": 1}.get(layout, 4)
    write(tmp_path / "a.tif", pixels, gone=range(count), keep_offset=True, **options)
    with open_image(tmp_path / "a.tif") as source:
        np.testing.assert_array_equal(whole(source), pixels.transpose(2, 0, 1))
        assert source.notes == ()


def test_the_pixel_size_of_a_philips_slide_is_read(tmp_path):
    write(
        tmp_path / "a.tiff", picture(64, 96), gone=(), description=PHILIPS,
        software="Philips DP v1.0", tile=(32, 48), compression="jpeg",
    )  # fmt: skip
    with open_image(tmp_path / "a.tiff") as source:
        assert source.metadata.pixel_size == pytest.approx((0.5, 0.25))
        assert source.metadata.pixel_unit == "micrometer"
