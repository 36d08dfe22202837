"""An output as a file that other programs read."""

import json

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from tests.commands import check_refusal, tierscale

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


KINDS = {
    "x.tif": (("--cog",), "x.tif"),
    "x.zarr": (("--ome-zarr", "0.4"), "x.zarr/.zattrs"),
    "x": (("--dzi",), "x/image.dzi"),
}


@pytest.mark.parametrize("name", KINDS)
def test_exports_of_all_kinds_replace_what_is_theirs_alone(output, tmp_path, capsys, name):
    (options, mark), out = KINDS[name], tmp_path / name
    for _ in range(2):
        code, said, err = tierscale(capsys, "export", output, out, *options)
        assert code == 0 and str(out) in said, err
    (tmp_path / mark).write_text("changed")
    check_refusal(tierscale(capsys, "export", output, out, *options), 2, "was changed since")
    assert (tmp_path / mark).read_text() == "changed"
    assert tierscale(capsys, "export", output, out, *options, "--overwrite")[0] == 0
    assert (tmp_path / mark).read_bytes() != b"changed"
    assert [path.name for path in tmp_path.iterdir() if path.name != name] == []


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("x.png", ("--cog",), "does not end in .tif"),
        ("x.tif", ("--ome-zarr", "0.4"), "does not end in .zarr"),
        ("x.tif", ("--dzi",), "name a folder"),
        ("x", ("--dzi", "--cog"), "exclude each other"),
        ("s3://bucket/x.tif", (), "no local path"),
        ("none/x", ("--dzi",), "there is no folder"),
    ],
)
def test_a_name_that_says_something_else_is_refused(output, tmp_path, capsys, name, options, words):
    out = name if "://" in name else tmp_path / name
    check_refusal(tierscale(capsys, "export", output, out, *options), 2, words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("options", [("--dzi",), ("--ome-zarr", "0.4")])
def test_a_folder_that_is_no_export_is_never_replaced(output, tmp_path, capsys, options):
    out = tmp_path / ("x" if options == ("--dzi",) else "x.zarr")
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    result = tierscale(capsys, "export", output, out, *options, "--overwrite")
    check_refusal(result, 2, "choose another name")
    assert (out / "mine.txt").read_text() == "mine"
    if options == ("--dzi",):
        around = tierscale(capsys, "export", output, output.parent, *options, "--overwrite")
        check_refusal(around, 2, "choose another place")
        inside = tierscale(capsys, "export", output, output / "x", *options)
        check_refusal(inside, 2, "choose another place")
