"""Tiles of a scene, and what the page is told."""

import io
import json

import numpy as np
from PIL import Image

from tests.pipeline.view.scenes import scene
from tierscale.pipeline.view.scene import script


def pixels(content):
    return np.asarray(Image.open(io.BytesIO(content)))


def test_tiles_cover_the_picture():
    shown = scene()
    assert shown.sizes[0] == (600, 800) and shown.tiles(0) == (2, 2)
    assert shown.has(1, 0, 1, 1) and not shown.has(0, 0, 2, 0) and not shown.has(0, 0, 0, 2)
    assert not shown.has(2, 0, 0, 0) and not shown.has(0, len(shown.sizes), 0, 0)
    last = pixels(shown.picture(0, 0, 1, 1, True))
    assert last.shape == (88, 288, 3)
    source = pixels(shown.picture(1, 0, 1, 1, True))
    np.testing.assert_array_equal(255 - source, last)
    assert shown.picture(0, 0, 0, 0, False)[:2] == b"\xff\xd8"


def test_clear_pixels_are_kept():
    assert pixels(scene(alpha=True).picture(0, 0, 0, 0, False)).shape == (512, 512, 4)


def test_the_map_has_the_tint_of_each_tile():
    shown = scene()
    tints = shown.about()["tiers"]["tints"]
    image = pixels(shown.map())
    assert image.shape == (48, 64, 3)
    assert ["#{:02x}{:02x}{:02x}".format(*image[8, 16 * at + 8]) for at in range(2)] == tints


def test_the_page_is_told_what_it_needs():
    about = scene().about()
    assert about["sizes"][0] == [800, 600] and about["layers"] == ["result", "source pixels"]
    assert about["tiers"]["tiles"] == [6, 6] and about["tiers"]["figures"] == [["took", " ms"]]
    row = scene().row(1)
    assert row["tiers"] == [0, 1, 0, 1] and row["figures"] == [[1.5, None, 1.5, None]]
    assert scene(tiers=None).about()["tiers"] is None


def test_what_is_told_is_no_markup():
    text = script("f", {"a": "</script>"}).decode()
    assert "<" not in text and json.loads(text[2:-3]) == {"a": "</script>"}
