"""Masks of TIFFs: read as alpha or no-data, and refused where there is no room for them."""

import numpy as np
import pytest
import tifffile

from tests.pipeline.formats.pictures import picture
from tests.pipeline.output.export.sample import GEO
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.formats.registry import open_image
from tierscale.pipeline.formats.tiff.metadata import GEO_TAGS
from tierscale.pipeline.plan.options import Selection

MAP = [
    (GEO_TAGS[name], "d", len(GEO[name]), tuple(GEO[name]), True)
    for name in ("ModelPixelScale", "ModelTiepoint")
]
VALID = np.zeros((40, 60), bool)
VALID[10:, 5:] = True


def masked(path, pixels, *, tags=MAP, levels=1, planar="contig", mask=VALID):
    """A TIFF of (y, x) or (y, x, c) whose pages are followed by their masks, as GDAL writes it."""
    colours = "rgb" if pixels.ndim == 3 and planar == "contig" else "minisblack"
    with tifffile.TiffWriter(path) as tif:
        for level in range(levels):
            options = {"photometric": colours, "extratags": () if level else tags}
            step = 2**level
            tif.write(pixels[::step, ::step], subfiletype=min(level, 1), metadata=None, **options)
            tif.write(
                mask[::step, ::step],
                subfiletype=4 + min(level, 1),
                photometric="mask",
                metadata=None,
                compression="zlib",
                rowsperstrip=7,
            )


@pytest.mark.parametrize(("channels", "colour"), [(1, "greya"), (3, "rgba")])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_mask_becomes_alpha(tmp_path, channels, colour, dtype):
    pixels = (picture(40, 60, channels, np.uint8)).astype(dtype)
    masked(tmp_path / "a.tif", pixels if channels > 1 else pixels[..., 0])
    with open_image(tmp_path / "a.tif") as source:
        assert (source.colour, source.alpha, source.metadata.masked) == (colour, "straight", True)
        assert any("mask" in note for note in source.notes)
        window = source.read(5, 25, 2, 30)
        joined = np.concatenate([strip for _, strip in source.strips()], axis=1)
    np.testing.assert_array_equal(window, joined[:, 5:25, 2:30])
    np.testing.assert_array_equal(joined[:-1], pixels.transpose(2, 0, 1))
    np.testing.assert_array_equal(joined[-1], VALID * np.iinfo(dtype).max)


def test_a_mask_of_a_level_is_the_one_of_its_size(tmp_path):
    masked(tmp_path / "a.tif", picture(40, 60, 3), levels=2)
    with open_image(tmp_path / "a.tif", Selection(level=1)) as source:
        assert source.shape == (4, 20, 30)
        np.testing.assert_array_equal(source.read(0, 20, 0, 30)[-1] > 0, VALID[::2, ::2])


def test_floats_are_masked_by_what_says_no_data(tmp_path):
    heights = picture(40, 60, 1, np.float32)[..., 0]
    masked(tmp_path / "a.tif", heights)
    with open_image(tmp_path / "a.tif") as source:
        assert np.isnan(source.metadata.nodata) and source.colour == "grey"
        np.testing.assert_array_equal(np.isnan(source.read(0, 40, 0, 60)[0]), ~VALID)
    masked(tmp_path / "b.tif", heights, tags=[*MAP, (42113, "s", 0, "-9999", True)])
    with open_image(tmp_path / "b.tif") as source:
        seen = source.read(0, 40, 0, 60)[0]
        assert source.metadata.nodata == -9999
    np.testing.assert_array_equal(seen, np.where(VALID, heights, -9999))


def test_alpha_is_clear_outside_a_mask(tmp_path):
    pixels = np.dstack([picture(40, 60, 3), np.full((40, 60), 200, np.uint8)])
    masked(tmp_path / "a.tif", pixels)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as tif:
        tif.pages.first.tags["ExtraSamples"].overwrite([2])
    with open_image(tmp_path / "a.tif") as source:
        assert source.colour == "rgba" and not source.metadata.masked
        np.testing.assert_array_equal(source.read(0, 40, 0, 60)[-1], VALID * 200)


def test_bands_without_a_value_for_it_have_no_room_for_a_mask(tmp_path):
    pixels = picture(40, 60, 5)
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        tif.write(pixels, photometric="minisblack", planarconfig="contig", metadata=None)
        tif.write(VALID, subfiletype=4, photometric="mask", metadata=None)
    with pytest.raises(Refused, match="its mask cannot be kept beside separate channels of uint8"):
        open_image(tmp_path / "a.tif")


def test_the_mask_of_another_page_is_not_taken(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        tif.write(picture(40, 60, 3), photometric="rgb", metadata=None)
        tif.write(picture(40, 60, 3), photometric="rgb", metadata=None)
        tif.write(VALID, subfiletype=4, photometric="mask", metadata=None)
    with open_image(tmp_path / "a.tif") as source:
        assert source.colour == "rgb"
    with open_image(tmp_path / "a.tif", Selection(series=1)) as source:
        assert source.colour == "rgba" and not source.metadata.masked
