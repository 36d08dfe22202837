"""What a source states is in its output, and is read back from the output alone."""

import shutil

import numpy as np
import pytest
import tifffile
import zarr

from tests.commands import FAST, tierscale
from tests.pipeline.formats.arrays.test_ome import placed_zarr
from tests.pipeline.formats.pictures import picture
from tests.pipeline.formats.tiff.test_mask import MAP, VALID, masked
from tests.pipeline.output.export.sample import ICC
from tierscale.pipeline.formats.georeference import geo_transform
from tierscale.pipeline.formats.registry import open_image
from tierscale.pipeline.plan.options import Selection


def made(capsys, tmp_path, source, *options):
    """An output of a source at x4, moved away from the folder beside it."""
    output = tmp_path / "out.zarr"
    code, _, said = tierscale(capsys, "upscale", source, output, *FAST, *options)
    assert code == 0, said
    return shutil.move(output, tmp_path / "alone.zarr")


def translations(output):
    ome = zarr.open_group(str(output), mode="r").attrs["ome"]
    return [
        level["coordinateTransformations"][1]["translation"][1:]
        for level in ome["multiscales"][0]["datasets"]
    ]


def test_positions_windows_and_plane_of_an_ome_zarr(tmp_path, capsys):
    pixels = np.random.default_rng(0).integers(0, 5000, (2, 3, 140, 130), dtype=np.uint16)
    placed_zarr(tmp_path / "a.zarr", pixels)
    whole = made(capsys, tmp_path, tmp_path / "a.zarr", "--z", "1")
    assert translations(whole) == [[999.8125, 1999.90625]]
    with open_image(whole) as source:
        assert source.metadata.origin == (999.8125, 1999.90625)
        assert source.metadata.pixel_size == (0.125, 0.0625)
        assert source.metadata.channel_windows == ((100, 2000), (100, 3000))
        assert [tuple(one) for one in source.metadata.plane] == [("z", 1, 9.0, "micrometer")]
    shutil.rmtree(whole)
    part = made(capsys, tmp_path, tmp_path / "a.zarr", "--region", "100,50,20,40", "--overwrite")
    assert translations(part) == [[1024.8125, 2024.90625]]


def test_a_photo_lies_over_its_source_and_so_does_what_is_made_of_it(tmp_path, capsys):
    pixels = picture(520, 300, 3)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", iccprofile=ICC)
    output = made(capsys, tmp_path, tmp_path / "a.tif")
    assert translations(output) == [[-0.375] * 2, [-0.25] * 2, [0] * 2]
    with open_image(output, Selection(level=1)) as source:
        metadata = source.metadata
        assert (source.colour, metadata.icc) == ("rgb", ICC)
        assert (metadata.pixel_size, metadata.pixel_unit) == ((0.5, 0.5), None)
        assert metadata.origin == (-0.25, -0.25)


@pytest.mark.parametrize("level", [0, 1])
def test_the_place_on_the_ground_is_read_back(tmp_path, capsys, level):
    tifffile.imwrite(
        tmp_path / "a.tif", picture(270, 300, 1, np.uint16)[..., 0], extratags=MAP, metadata=None
    )
    output = made(capsys, tmp_path, tmp_path / "a.tif", "--nodata", "0")
    step = 2.5 / 4 * 2**level
    with open_image(output, Selection(level=level)) as source:
        assert geo_transform(source.metadata.geo) == [step, 0, 100, 0, -step, 200]


def test_the_mask_of_a_map_is_alpha_in_the_zarr_and_a_mask_in_the_tiff(tmp_path, capsys):
    masked(tmp_path / "a.tif", picture(40, 60, 3))
    output, exported = tmp_path / "out.zarr", tmp_path / "out.tif"
    assert tierscale(capsys, "upscale", tmp_path / "a.tif", exported, *FAST)[0] == 0
    assert zarr.open_array(f"{output}/0", mode="r").shape == (4, 160, 240)
    with tifffile.TiffFile(exported) as tif:
        photo, mask = tif.pages
        assert photo.shape == (160, 240, 3) and mask.is_mask and mask.bitspersample == 1
        # A corner is rounded by a pixel; sides stay where they are.
        differs = mask.asarray() != np.kron(VALID, np.ones((4, 4), bool))
    assert np.argwhere(differs).tolist() in ([], [[40, 20]])
    with open_image(exported) as source:
        assert source.colour == "rgba" and source.metadata.masked
