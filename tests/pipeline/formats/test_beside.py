"""Files beside an image: world files give its place on the ground, others are named."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from tierscale.pipeline.formats.beside import epsg_code, world_transform
from tierscale.pipeline.formats.georeference import crs_code, geo_transform
from tierscale.pipeline.formats.registry import open_image
from tierscale.pipeline.plan.options import Selection

WORLD = "10\n0\n0\n-10\n500005\n5199995\n"
UTM32 = 'PROJCS["x",GEOGCS["y",AUTHORITY["EPSG","4326"]],AUTHORITY["EPSG","32632"]]'
ESRI = 'PROJCS["WGS_1984_UTM_Zone_32N",GEOGCS["GCS_WGS_1984"],UNIT["Meter",1.0]]'
KEYS = (1, 1, 0, 2, 1025, 0, 1, 2, 3072, 0, 1, 32633)


def jpeg(path, orientation=1):
    exif = Image.Exif()
    exif[274] = orientation
    Image.new("RGB", (20, 10)).save(path, "JPEG", exif=exif)
    return path


def tiff(path, *tags):
    tifffile.imwrite(path, np.zeros((20, 30), np.uint8), extratags=tags, metadata=None)
    return path


def opened(path, **selection):
    with open_image(path, Selection(**selection)) as source:
        return source.metadata.geo, source.notes


@pytest.mark.parametrize(
    ("image", "beside"),
    [("a.jpg", "a.jgw"), ("a.jpg", "a.jpgw"), ("a.JPG", "a.JGW"), ("a.jpg", "a.wld")],
)
def test_a_world_file_gives_the_place_of_corners(tmp_path, image, beside):
    assert opened(jpeg(tmp_path / image)) == (None, ())
    (tmp_path / beside).write_text(WORLD)
    geo, (note,) = opened(tmp_path / image)
    assert geo_transform(geo) == [10, 0, 500000, 0, -10, 5200000]
    assert f"read from {beside}" in note and "no EPSG code" in note


def test_the_system_is_that_of_the_whole_text_of_the_prj(tmp_path):
    jpeg(tmp_path / "a.jpg")
    (tmp_path / "a.jgw").write_text(WORLD)
    (tmp_path / "a.prj").write_text(UTM32)
    geo, (note,) = opened(tmp_path / "a.jpg")
    assert crs_code(geo) == "EPSG:32632" and "a.jgw and a.prj" in note
    (tmp_path / "a.prj").write_text(ESRI)
    geo, notes = opened(tmp_path / "a.jpg")
    assert crs_code(geo) is None and "a.prj, not read" in notes[-1]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (UTM32, 32632),
        ('PROJCRS["x",BASEGEOGCRS["y",ID["EPSG",4326]],ID["EPSG",25832]]\n', 25832),
        (ESRI, None),
        ('PROJCS["x",GEOGCS["y",AUTHORITY["EPSG","4326"]],UNIT["m",1]]', None),
    ],
)
def test_an_epsg_code_is_never_that_of_a_part(text, code):
    assert epsg_code(text) == code


@pytest.mark.parametrize(
    "text", ["", "10 0 0", "10 0 0 -10 1 nan", "0 0 0 0 1 2", "a b c d e f", "1 2 2 4 0 0"]
)
def test_what_is_no_world_file_gives_no_place(tmp_path, text):
    assert world_transform(text) is None
    jpeg(tmp_path / "a.jpg")
    (tmp_path / "a.jgw").write_text(text)
    geo, (note,) = opened(tmp_path / "a.jpg")
    assert geo is None and "six numbers" in note


def test_a_turned_raster_has_its_rotation(tmp_path):
    (tmp_path / "a.jgw").write_text("2\n1\n1,0\n-2\n101,5\n199.5\n")
    geo, _ = opened(jpeg(tmp_path / "a.jpg"))
    assert geo_transform(geo) == [2, 1, 100, 1, -2, 200]


def test_what_the_image_says_of_its_place_goes_first(tmp_path):
    tags = [(33550, "d", 3, (1.0, 1.0, 0.0), True), (33922, "d", 6, (0.0,) * 6, True)]
    tiff(tmp_path / "a.tif", *tags)
    (tmp_path / "a.tfw").write_text(WORLD)
    geo, (note,) = opened(tmp_path / "a.tif")
    assert geo_transform(geo) == [1, 0, 0, 0, -1, 0]
    assert "a.tfw, not read" in note and "the image tells its place itself" in note


def test_a_place_is_added_to_a_system_of_points(tmp_path):
    tiff(tmp_path / "a.tif", (34735, "H", len(KEYS), KEYS, True))
    (tmp_path / "a.tfw").write_text(WORLD)
    geo, _ = opened(tmp_path / "a.tif")
    assert crs_code(geo) == "EPSG:32633"
    assert geo_transform(geo) == [10, 0, 500000, 0, -10, 5200000]


def test_pictures_that_the_world_file_does_not_tell_of(tmp_path):
    (tmp_path / "a.jgw").write_text(WORLD)
    geo, notes = opened(jpeg(tmp_path / "a.jpg", orientation=6))
    assert geo is None and "before they were set upright" in notes[-1]
    tifffile.imwrite(tmp_path / "b.tif", np.zeros((2, 20, 30), np.uint8), metadata=None)
    (tmp_path / "b.tfw").write_text(WORLD)
    geo, notes = opened(tmp_path / "b.tif", series=1)
    assert geo is None and "first image" in notes[-1]


@pytest.mark.parametrize("beside", ["a.prj", "a.jpg.aux.xml", "a.aux.xml", "a.jpg.msk"])
def test_files_that_are_not_read_are_named(tmp_path, beside):
    jpeg(tmp_path / "a.jpg")
    (tmp_path / beside).write_text("<PAMDataset/>")
    geo, (note,) = opened(tmp_path / "a.jpg")
    assert geo is None and f"{beside}, not read" in note
