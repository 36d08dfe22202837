"""The metadata of an output opens as OME-NGFF 0.5, and levels lie where their pixels are."""

from fractions import Fraction

import numpy as np
import ome_zarr_models
import pytest
import zarr

from tierscale.pipeline.formats.metadata import PhotoMetadata
from tierscale.pipeline.output.levels import StoreLayout
from tierscale.pipeline.output.ome import level_attributes, ome_attributes


def layout_of(colour, channels, dtype="u1"):
    return StoreLayout((channels, 3000, 2000), np.dtype(dtype), colour, (512, 512))


def attributes(colour, channels, dtype="u1", scale=Fraction(4), window=(0.0, 255.0), **metadata):
    facts = PhotoMetadata(**metadata).scaled(scale)
    return ome_attributes("a", layout_of(colour, channels, dtype), facts, scale, window)["ome"]


def translations(levels):
    transforms = [
        entry["coordinateTransformations"] for entry in levels["multiscales"][0]["datasets"]
    ]
    return [second["translation"] for _, second in transforms]


def test_an_output_opens_as_ome_zarr(output):
    image = ome_zarr_models.open_ome_zarr(zarr.open_group(output, mode="r"))
    (level,) = image.attributes.ome.multiscales[0].datasets
    scale, translation = level.coordinateTransformations
    assert scale.scale == [1, 0.25, 0.25] and translation.translation == [0, -0.375, -0.375]
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
    assert attributes("grey", 1)["omero"]["rdefs"] == {
        "model": "greyscale",
        "defaultT": 0,
        "defaultZ": 0,
    }


def test_an_output_lies_where_its_source_does():
    """The corner stays, so the centre of the first pixel moves by (1/s - 1)/2 source pixels."""
    assert translations(attributes("rgb", 3)) == [[0, c, c] for c in (-0.375, -0.25, 0)]
    placed = {"pixel_size": (0.5, 0.25), "pixel_unit": "micrometer", "origin": (1000.0, 2000.0)}
    assert translations(attributes("rgb", 3, **placed))[0] == [0, 999.8125, 1999.90625]
    part = PhotoMetadata(**placed).cropped(100, 50).scaled(Fraction(4))
    image = ome_attributes("a", layout_of("rgb", 3), part, Fraction(4), (0, 255))
    assert translations(image["ome"])[0] == [0, 1024.8125, 2024.90625]


def test_colours_are_those_of_the_file_or_of_a_photo():
    def colours(*arguments, **metadata):
        channels = attributes(*arguments, **metadata)["omero"]["channels"]
        return [channel["color"] for channel in channels]

    assert colours("channels", 3) == ["FF0000", "00FF00", "0000FF"]
    assert colours("channels", 3, "u2")[:2] == ["0000FF", "00FF00"]
    assert colours("channels", 3, channel_names=("DAPI", "GFP", "Cy5"))[0] == "0000FF"
    assert colours("channels", 2, "u2", channel_colours=("FF0000", "FFFFFF"))[0] == "FF0000"


def test_windows_are_those_of_the_source_within_its_bits():
    windows = ((100.0, 2000.0), (0.0, 9000.0))
    omero = attributes("channels", 2, "u2", channel_windows=windows, bits=12)["omero"]
    assert [channel["window"] for channel in omero["channels"]] == [
        {"min": 0, "max": 4095, "start": 100, "end": 2000},
        {"min": 0, "max": 4095, "start": 0, "end": 4095},
    ]


UTM = [1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32632]
BANDS = """<GDALMetadata>
  <Item name="DESCRIPTION" sample="0" role="description">B2</Item>
  <Item name="DESCRIPTION" sample="1" role="description">B8</Item>
</GDALMetadata>"""


def test_a_raster_says_where_it_lies_and_what_its_bands_are():
    geo = {
        "GeoKeyDirectory": UTM,
        "ModelPixelScale": [10.0, 20.0, 0.0],
        "ModelTiepoint": [0.0, 0.0, 0.0, 500000.0, 5200000.0, 0.0],
        "GDAL_METADATA": BANDS,
    }
    facts = PhotoMetadata(geo=geo).cropped(100, 50).scaled(Fraction(4))
    layout = layout_of("channels", 2, "u2")
    levels = level_attributes(layout, facts)
    assert [level["proj:code"] for level in levels] == ["EPSG:32632"] * 3
    assert [level["spatial:transform"] for level in levels] == [
        [2.5 * k, 0, 501000, 0, -5.0 * k, 5199000] for k in (1, 2, 4)
    ]
    assert levels[1]["spatial:shape"] == [1500, 1000]
    image = ome_attributes("a", layout, facts, Fraction(4), (0, 1))["ome"]
    assert [channel["label"] for channel in image["omero"]["channels"]] == ["B2", "B8"]
    assert image["multiscales"][0]["axes"][1] == {"name": "y", "type": "space", "unit": "meter"}
    # 50 rows of 20 m down, 100 columns of 10 m to the right, less 3/8 of a source pixel.
    assert translations(image)[0] == [0, 1000 - 7.5, 1000 - 3.75]
    assert level_attributes(layout, PhotoMetadata()) == [{}, {}, {}]
