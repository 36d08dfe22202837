"""Charts have axes that hold their points, and names are drawn as they are written."""

import numpy as np
import pytest
from PIL import Image

from tierscale.pipeline.output.pictures import charts
from tierscale.pipeline.output.pictures.tile_maps import DifficultyMap, TileMap

CURVE = [(0.01, 0.4), (0.3, 0.1), (1.0, 0.0)]


@pytest.mark.parametrize(
    "name", ["a.png", "cost $x^{2$ of \\alpha_.png", "写真 📷.png", "a\nb\x1b.png"]
)
def test_a_name_is_no_formula_and_warns_of_nothing(name):
    picture = charts.curve_chart(name, CURVE, (0.3, 0.1))
    assert picture.size == (960, 600) and picture.mode == "RGB"


def test_the_plan_lies_on_the_curve_in_red():
    pixels = np.asarray(charts.curve_chart("a.png", CURVE, (0.3, 0.1))).astype(int)
    red = np.argwhere(np.abs(pixels - (214, 66, 60)).max(axis=2) < 4)
    plan = red[red[:, 0] < 300]  # the rest is the legend
    height, width = pixels.shape[:2]
    assert len(plan) > 50
    y, x = plan.mean(axis=0)
    assert 0.3 * width < x < 0.45 * width and 0.1 * height < y < 0.45 * height


@pytest.mark.parametrize("curve", [[(0.5, 0.0)], [(0.5, 0.1), (0.5, 0.1)]])
def test_a_curve_of_one_point_can_be_drawn(curve):
    assert charts.curve_chart("a", curve, curve[0]).size == (960, 600)


@pytest.mark.parametrize(
    ("size", "wide"),
    [((300, 300), False), ((300, 900), True), ((2, 30_000), True), ((30_000, 2), False)],
)
@pytest.mark.parametrize("scores", ["errors", "order", "none"])
def test_maps_of_any_shape_are_readable(size, wide, scores):
    shape = -(-size[0] // 128), -(-size[1] // 128)
    routes = np.arange(shape[0] * shape[1]).reshape(shape) % 2
    tiles = TileMap(("bicubic", "file:a_b$c$.safetensors"), routes, size, 128)
    difficulty = DifficultyMap(np.random.default_rng(0).random(shape) * 1e-3, scores)
    thumbnail = Image.new("RGB", (max(1, size[1] // 30), max(1, size[0] // 30)), (128, 128, 128))
    picture = charts.tile_charts(thumbnail, tiles, difficulty)
    assert 1000 < picture.width < 1500 and 300 < picture.height < 1500
    pixels = np.asarray(picture).astype(int)
    blue = np.argwhere(np.abs(pixels - tiles.tints[0]).max(axis=2) < 6)
    assert len(blue) > 500
    # the map of tiers lies left of, or above, that of the difficulty
    assert blue[:, 0 if wide else 1].max() < picture.size[1 if wide else 0] * 0.62
