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
from tierscale.pipeline.formats.georeference import scaled_geo
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
    larger = scaled_geo(geo, float(scale))
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
    larger = scaled_geo(geo, 2.0)
    i, _, _, east, _, _ = larger["ModelTiepoint"]
    assert [east + (x - i) * larger["ModelPixelScale"][0] for x in range(4)] == [
        -2.5,
        2.5,
        7.5,
        12.5,
    ]


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
