"""An output as a file that other programs read."""

import json

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from tests.commands import tierscale

REGION = ("--tiers", "bicubic", "--ray", "none", "--region", "0,0,60,50")


def test_export_keeps_pixels_and_resolution(output, tmp_path, capsys):
    assert tierscale(capsys, "export", output, tmp_path / "out.tif")[0] == 0
    assert tierscale(capsys, "export", output, tmp_path / "out.png")[0] == 0
    pixels = zarr.open_array(f"{output}/0", mode="r")[0]
    with tifffile.TiffFile(tmp_path / "out.tif") as file:
        np.testing.assert_array_equal(file.asarray(), pixels)
        assert file.series[0].levels[1].shape == (600, 400)
        numerator, denominator = file.pages[0].tags["XResolution"].value
        # A PNG counts pixels by the metre; a TIFF has the centimetre for that.
        assert file.pages[0].tags["ResolutionUnit"].value == 3
        assert numerator / denominator == pytest.approx(1200 / 2.54, rel=1e-4)
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "out.png")), pixels)


def test_an_output_may_be_a_tiff(source, tmp_path, capsys):
    code, out, err = tierscale(capsys, "upscale", source, tmp_path / "x.tif", *REGION, "--json")
    assert code == 0, err
    assert json.loads(out)["output"].endswith("x.zarr")
    assert tifffile.imread(tmp_path / "x.tif").shape == (200, 240)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("none/x.tif", "there is no folder"),
        ("none/x.png", "there is no folder"),
        ("folder.tif", "is a folder; name a file in it"),
    ],
)
def test_a_place_that_cannot_be_is_refused(output, tmp_path, capsys, name, words):
    (tmp_path / "folder.tif").mkdir()
    code, _, err = tierscale(capsys, "export", output, tmp_path / name)
    assert code == 2 and words in err and str(tmp_path / name) in err, err
