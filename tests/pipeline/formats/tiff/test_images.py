"""Of the images in a TIFF the one that is meant is taken, and each page is its own."""

import numpy as np
import pytest
import tifffile

from tests.pipeline.formats.pictures import picture, whole
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.formats.registry import open_image
from tierscale.pipeline.plan.options import Selection

SMALL, FULL = picture(24, 32), picture(96, 128, seed=1)
CFA = picture(60, 80, 1, np.uint16)[..., 0]
DNG = (50706, "B", 4, b"\x01\x04\0\0", True)


def write(path, *pages):
    """A TIFF of pages (pixels, options of tifffile)."""
    with tifffile.TiffWriter(path) as writer:
        for pixels, options in pages:
            kind = {"photometric": "rgb" if pixels.ndim == 3 else "minisblack"}
            writer.write(pixels, metadata=None, **{**kind, **options})


def test_a_preview_is_not_taken_for_the_picture(tmp_path):
    write(tmp_path / "a.tif", (SMALL, {"subfiletype": 1}), (FULL, {}))
    with open_image(tmp_path / "a.tif") as source:
        np.testing.assert_array_equal(whole(source), FULL.transpose(2, 0, 1))
        (note,) = source.notes
        assert "image 1 of 2" in note and "128 x 96" in note and "32 x 24" in note
    with open_image(tmp_path / "a.tif", Selection(series=0)) as source:
        np.testing.assert_array_equal(whole(source), SMALL.transpose(2, 0, 1))


def test_the_picture_in_a_directory_below_a_preview_is_taken(tmp_path):
    write(tmp_path / "a.tif", (SMALL, {"subfiletype": 1, "subifds": 1}), (FULL, {}))
    with open_image(tmp_path / "a.tif") as source:
        assert source.shape == (3, 96, 128)


def test_a_file_of_previews_alone_gives_the_first(tmp_path):
    write(tmp_path / "a.tif", (SMALL, {"subfiletype": 1}))
    with open_image(tmp_path / "a.tif") as source:
        assert source.shape == (3, 24, 32) and source.notes == ()


@pytest.mark.parametrize(
    ("preview", "sensor"),
    [
        ({"extratags": [DNG]}, {"photometric": 32803}),
        ({}, {"photometric": 32803}),
        ({}, {"photometric": 34892}),
        ({"extratags": [DNG]}, {}),
    ],
)
def test_a_camera_raw_is_refused_by_name_and_its_preview_is_given_to_who_asks(
    tmp_path, preview, sensor
):
    path = tmp_path / "a.dng"
    mosaic = FULL if sensor.get("photometric") == 34892 else CFA
    write(path, (SMALL, {"subfiletype": 1, "subifds": 1, **preview}), (mosaic, sensor))
    for selection in (Selection(), Selection(series=1)):
        with pytest.raises(Refused, match=r"camera raw.*--series 0 \(32 x 24 pixels\)"):
            open_image(path, selection)
    with open_image(path, Selection(series=0)) as source:
        assert source.shape == (3, 24, 32) and "camera raw" in source.notes[0]


def test_a_canon_raw_is_known_by_its_mark(tmp_path):
    write(tmp_path / "a.cr2", (SMALL, {}))
    data = (tmp_path / "a.cr2").read_bytes()
    start = int.from_bytes(data[4:8], "little")
    moved = data[:4] + (start + 8).to_bytes(4, "little") + b"CR\x02\0\0\0\0\0" + data[8:]
    (tmp_path / "a.cr2").write_bytes(moved)
    with pytest.raises(Refused, match="camera raw"):
        open_image(tmp_path / "a.cr2")


def book(path, *, odd=None, count=10):
    """Pages of one grey each, 25 times their number; of page 4 the orientation is 6."""
    pages = []
    for page in range(count):
        size = (20, 10) if page == odd else (16, 24)
        orientation = [(274, "H", 1, 6 if page == 4 else 1, True)]
        density = (100 + page, 100 + page)
        pages.append(
            (
                np.full(size, 25 * page, np.uint8),
                {"extratags": orientation, "resolution": density, "resolutionunit": 2},
            )
        )
    write(path, *pages)


@pytest.mark.parametrize("odd", [None, 3, 5])
def test_every_page_of_a_book_is_found_in_order_with_its_own_tags(tmp_path, odd):
    book(tmp_path / "a.tif", odd=odd)
    for page in range(10):
        with open_image(tmp_path / "a.tif", Selection(series=page)) as source:
            high, wide = (20, 10) if page == odd else (24, 16) if page == 4 else (16, 24)
            assert source.shape == (1, high, wide)
            assert (whole(source) == 25 * page).all()
            assert source.metadata.resolution == (100 + page, 100 + page)
            assert ("it was set upright" in source.notes) is (page == 4)
            assert any(f"image {page} of 10" in note for note in source.notes)
    with pytest.raises(Refused, match="goes from 0 to 9"):
        open_image(tmp_path / "a.tif", Selection(series=10))


@pytest.mark.parametrize("name", ["z", "t"])
def test_loose_pages_are_no_planes(tmp_path, name):
    book(tmp_path / "a.tif")
    with pytest.raises(Refused, match=f"--{name} 2 .* 10 pages .* --series"):
        open_image(tmp_path / "a.tif", Selection(**{name: 2}))


def test_a_stack_whose_axis_has_no_name_is_gone_through_by_z(tmp_path):
    pixels = np.arange(5, dtype=np.uint8)[:, None, None] * np.ones((1, 16, 24), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack")
    for plane in range(5):
        with open_image(tmp_path / "a.tif", Selection(z=plane)) as source:
            assert (whole(source) == plane).all() and "(--z chooses)" in source.notes[0]
    with pytest.raises(Refused, match="goes from 0 to 4"):
        open_image(tmp_path / "a.tif", Selection(z=5))
