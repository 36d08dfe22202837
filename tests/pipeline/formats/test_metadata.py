"""What a file says beside its pixels stays true of the enlarged picture."""

import json
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.pipeline.formats.pictures import picture
from tierscale.pipeline.formats.georeference import (
    band_names,
    cropped_geo,
    crs_code,
    geo_transform,
    ground_pixel,
    scaled_geo,
)
from tierscale.pipeline.formats.metadata import PhotoMetadata
from tierscale.pipeline.formats.registry import open_image

AREA = [1, 1, 0, 1, 1025, 0, 1, 1]


POINT = [1, 1, 0, 1, 1025, 0, 1, 2]


@settings(deadline=None)
@given(
    st.sampled_from([AREA, POINT]),
    st.fractions(Fraction(1, 3), 9),
    st.tuples(*[st.floats(-1000, 1000)] * 4),
    st.floats(0.01, 100),
    st.floats(0.01, 100),
)
def test_enlarging_moves_no_place_on_the_ground(keys, scale, tie, size_x, size_y):
    def ground(geo: dict[str, Any], x: float, y: float) -> np.ndarray:
        """The place of the corner at (x, y) pixels, by tie point and by matrix."""
        half = 0.5 if keys is POINT else 0.0
        i, j, _, east, north, _ = geo["ModelTiepoint"]
        by_tie = (
            east + (x - half - i) * geo["ModelPixelScale"][0],
            north - (y - half - j) * geo["ModelPixelScale"][1],
        )
        matrix = np.reshape(geo["ModelTransformation"], (4, 4))
        return np.array([*by_tie, *(matrix @ [x - half, y - half, 0, 1])[:2]])

    matrix = [size_x, 0.1, 0, tie[2], -0.2, -size_y, 0, tie[3], 0, 0, 1, 0, 0, 0, 0, 1]
    ties = [tie[0], tie[1], 0, tie[2], tie[3], 0]
    geo = {
        "GeoKeyDirectory": keys,
        "ModelPixelScale": [size_x, size_y, 0],
        "ModelTiepoint": ties,
        "ModelTransformation": matrix,
    }
    larger = scaled_geo(geo, float(scale), float(scale))
    for x, y in ((0, 0), (17, 5), (100.5, 3.25)):
        np.testing.assert_allclose(
            ground(larger, x * float(scale), y * float(scale)),
            ground(geo, x, y),
            rtol=1e-7,
            atol=1e-5,
        )


def test_a_point_raster_by_hand():
    # Two pixels of 10 m whose centres lie at 0 and 10; four of 5 m have theirs at -2.5, 2.5, 7.5,
    # 12.5.
    geo = {
        "GeoKeyDirectory": POINT,
        "ModelPixelScale": [10, 10, 0],
        "ModelTiepoint": [0, 0, 0, 0, 0, 0],
    }
    larger = scaled_geo(geo, 2.0, 2.0)
    i, _, _, east, _, _ = larger["ModelTiepoint"]
    assert [east + (x - i) * larger["ModelPixelScale"][0] for x in range(4)] == [
        -2.5,
        2.5,
        7.5,
        12.5,
    ]


def test_the_tie_point_stands_at_the_first_corner_for_readers_that_look_nowhere_else():
    geo = {
        "GeoKeyDirectory": AREA,
        "ModelPixelScale": [10.0, 10.0, 0.0],
        "ModelTiepoint": [0.0, 0.0, 0.0, 1000000.0, 6000000.0, 0.0],
    }
    part = scaled_geo(cropped_geo(geo, 100, 50), 4.0, 4.0)
    assert part["ModelTiepoint"] == [0, 0, 0, 1001000, 5999500, 0]
    point = {
        "GeoKeyDirectory": POINT,
        "ModelPixelScale": [0.001, 0.001, 0.0],
        "ModelTiepoint": [0.0, 0.0, 0.0, 7.0005, 46.9995, 0.0],
    }
    tie = scaled_geo(point, 4.0, 4.0)["ModelTiepoint"]
    np.testing.assert_allclose(tie, [0, 0, 0, 7.000125, 46.999875, 0], rtol=1e-12)
    # Several of them are ground control points, which stay where they are.
    ties = [*geo["ModelTiepoint"], 5.0, 5.0, 0.0, 1000050.0, 5999950.0, 0.0]
    assert scaled_geo({**geo, "ModelTiepoint": ties}, 2.0, 2.0)["ModelTiepoint"][6:8] == [10, 10]


def test_the_place_on_the_ground_in_words():
    keys = [1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 2, 3072, 0, 1, 32632]
    geo = {
        "GeoKeyDirectory": keys,
        "ModelPixelScale": [10.0, 20.0, 0.0],
        "ModelTiepoint": [1.0, 1.0, 0.0, 100.0, 200.0, 0.0],
    }
    # The centre of pixel (1, 1) is at (100, 200), so the corner of (0, 0) at (85, 230).
    assert geo_transform(geo) == [10, 0, 85, 0, -20, 230]
    assert (crs_code(geo), ground_pixel(geo)) == ("EPSG:32632", (20, 10))
    matrix = [2.0, 0.5, 0, 7, -0.5, -2.0, 0, 9, 0, 0, 1, 0, 0, 0, 0, 1]
    turned = {"GeoKeyDirectory": AREA, "ModelTransformation": matrix}
    assert geo_transform(turned) == [2, 0.5, 7, -0.5, -2, 9]
    assert (crs_code(turned), ground_pixel(turned), band_names(turned, 2)) == (None, None, ())
    assert band_names({"GDAL_METADATA": "<broken"}, 2) == ()


@settings(deadline=None)
@given(st.fractions(Fraction(1, 2), 10))
def test_the_physical_size_of_the_picture_stays(scale):
    photo = PhotoMetadata(
        resolution=(300.0, 150.0),
        resolution_unit="inch",
        pixel_size=(0.5, 0.25),
        pixel_unit="micrometer",
        icc=b"x",
    )
    larger = photo.scaled(scale)
    assert larger.resolution == pytest.approx(
        (300 * scale, 150 * scale)
    ) and larger.pixel_size == pytest.approx((0.5 / scale, 0.25 / scale))
    assert larger.icc == b"x" and larger.resolution_unit == "inch"


def test_metadata_go_through_json():
    metadata = PhotoMetadata(
        icc=b"\0\1",
        exif=b"\xff",
        xmp=b"x",
        resolution=(1.5, 2.0),
        resolution_unit="inch",
        pixel_size=(1.0, 2.0),
        pixel_unit="micrometer",
        geo={"ModelPixelScale": [1.0, 2.0, 0.0], "GDAL_NODATA": "nan"},
        channel_names=("a", "b"),
        channel_colours=("FF0000", "00FF00"),
        nodata=-1.0,
        origin=(1.0, -2.5),
        channel_windows=((1.0, 2.0), (3.0, 4.0)),
        bits=12,
    )
    assert PhotoMetadata.from_json(json.loads(json.dumps(metadata.to_json()))) == metadata
    assert (
        PhotoMetadata.from_json(json.loads(json.dumps(PhotoMetadata().to_json(), allow_nan=False)))
        == PhotoMetadata()
    )
    again = PhotoMetadata.from_json(
        json.loads(json.dumps(PhotoMetadata(nodata=float("nan")).to_json(), allow_nan=False))
    )
    assert again.nodata is not None and np.isnan(again.nodata)


def test_exif_is_kept_upright_and_without_what_is_no_longer_true(tmp_path):
    exif = Image.Exif()
    exif[274], exif[271], exif[315] = 6, "maker", "artist"
    exif.get_ifd(0x8769)[0x9003] = "2020:01:01 00:00:00"
    exif.get_ifd(0x8769)[0xA002] = 9
    exif.get_ifd(0x8825)[1] = "N"
    Image.fromarray(picture(9, 12)).save(tmp_path / "a.jpg", exif=exif, dpi=(300, 150))
    with open_image(tmp_path / "a.jpg") as source:
        assert source.metadata.exif is not None and source.metadata.resolution == (150, 300)
        again = Image.Exif()
        again.load(b"Exif\0\0" + source.metadata.exif)
        assert (again[274], again[271], again[315]) == (1, "maker", "artist")
        assert (
            dict(again.get_ifd(0x8769)) == {0x9003: "2020:01:01 00:00:00"}
            and again.get_ifd(0x8825)[1] == "N"
        )
