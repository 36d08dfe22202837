"""The metadata of an output opens as OME-NGFF 0.5, and levels lie where their pixels are."""

from fractions import Fraction

import numpy as np
import ome_zarr_models
import pytest
import zarr

from tierscale.pipeline.formats.metadata import PhotoMetadata
from tierscale.pipeline.output.levels import StoreLayout
from tierscale.pipeline.output.ome import ome_attributes


def attributes(colour, channels, dtype="u1", scale=Fraction(4), window=(0.0, 255.0), **metadata):
    layout = StoreLayout((channels, 3000, 2000), np.dtype(dtype), colour, (512, 512), (4, 4))
    return ome_attributes("a", layout, PhotoMetadata(**metadata), scale, window)["ome"]


def test_an_output_opens_as_ome_zarr(output):
    image = ome_zarr_models.open_ome_zarr(zarr.open_group(output, mode="r"))
    (level,) = image.attributes.ome.multiscales[0].datasets
    scale, translation = level.coordinateTransformations
    assert scale.scale == [1, 0.25, 0.25] and translation.translation == [0, 0, 0]
    array = zarr.open_array(f"{output}/0", mode="r")
    assert array.shape == (3, 600, 800) and array.metadata.dimension_names == ("c", "y", "x")
    assert array.shards[1] % (32 * 4) == 0 and array.shards[1] % array.chunks[1] == 0


@pytest.mark.parametrize("scale", [Fraction(4), Fraction(3), Fraction(5, 2)])
def test_the_corner_of_every_level_is_the_corner_of_the_image(scale):
    levels = attributes("rgb", 3, scale=scale, pixel_size=(0.5, 0.25), pixel_unit="micrometer")
    (multiscale,) = levels["multiscales"]
    assert [axis.get("unit") for axis in multiscale["axes"]] == [None, "micrometer", "micrometer"]
    corners = []
    for dataset in multiscale["datasets"]:
        size, centre = dataset["coordinateTransformations"]
        pairs = zip(centre["translation"][1:], size["scale"][1:], strict=True)
        corners.append([at - step / 2 for at, step in pairs])
    assert len(corners) == 3
    np.testing.assert_allclose(corners, [corners[0]] * 3, atol=1e-12)


def test_channels_of_a_microscope_keep_names_and_colours():
    omero = attributes(
        "channels", 2, "u2", window=(10.0, 900.0), channel_names=("DAPI", "FITC"),
        channel_colours=("0000FF", "00FF00"),
    )["omero"]  # fmt: skip
    assert [channel["label"] for channel in omero["channels"]] == ["DAPI", "FITC"]
    assert [channel["color"] for channel in omero["channels"]] == ["0000FF", "00FF00"]
    assert omero["channels"][0]["window"] == {"min": 0, "max": 65535, "start": 10, "end": 900}


def test_alpha_is_not_shown_as_a_colour():
    channels = attributes("rgba", 4)["omero"]["channels"]
    assert [channel["active"] for channel in channels] == [True, True, True, False]
    assert attributes("grey", 1)["omero"]["rdefs"] == {"model": "greyscale"}
