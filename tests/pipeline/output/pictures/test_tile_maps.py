"""Maps of tiles: the colours of their legends, and bounded in size for any shape."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tierscale.pipeline.output.levels import SMALLEST_LEVEL
from tierscale.pipeline.output.pictures.tile_maps import (
    RAMP,
    SHORTEST_SIDE,
    DifficultyMap,
    TileMap,
    base_picture,
    ramp,
    routing_map,
    tier_tints,
    tinted,
)


def tile_map(size, tile=32, tiers=2):
    shape = -(-size[0] // tile), -(-size[1] // tile)
    routes = np.arange(shape[0] * shape[1]).reshape(shape) % tiers
    return TileMap(("light", "half", "full")[:tiers], routes, size, tile)


@pytest.mark.parametrize("size", [(30_000, 2), (2, 30_000), (1, 1), (938, 1)])
def test_a_map_of_an_extreme_shape_takes_little_memory(size):
    """A picture of 1 by 938 pixels, such as 2 by 30,000 end in, was enlarged to 480 by 450,240."""
    picture = Image.new("RGB", tuple(max(1, side // 32) for side in size[::-1]), (90, 90, 90))
    tracemalloc.start()
    drawn = routing_map(picture, tile_map(size))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64 << 20
    assert drawn.width <= SMALLEST_LEVEL and drawn.height <= SMALLEST_LEVEL + 100


@given(width=st.integers(1, SMALLEST_LEVEL), height=st.integers(1, SMALLEST_LEVEL))
def test_what_maps_are_drawn_on_is_visible_and_bounded(width, height):
    sides = base_picture(Image.new("L", (width, height))).shape
    assert min(sides) >= SHORTEST_SIDE and max(sides) <= SMALLEST_LEVEL


def test_colours_of_the_maps_are_those_of_their_legends():
    colours = np.full((1, 3, 3), (240, 168, 48), np.float32)
    dark, middle, light = tinted(np.array([[0.0, 127.5, 255.0]]), colours)[0].astype(float)
    assert np.allclose(middle, colours[0, 0], atol=2) and dark.sum() < middle.sum() < light.sum()
    assert np.allclose(dark / dark.max(), middle / middle.max(), atol=0.02), "the same hue"


def test_each_tile_has_the_tint_of_its_tier():
    tiles = TileMap(("light", "full"), np.array([[0, 1], [1, 0]]), (64, 64), 32)
    mixed = tier_tints(np.full((100, 100), 127.5, np.float32), tiles).astype(int)
    for y, x in ((20, 20), (20, 80), (80, 20), (80, 80)):
        tint = tiles.tints[tiles.routes[y // 50, x // 50]]
        assert np.abs(mixed[y, x] - tint).max() <= 2
    assert mixed[50, 20].sum() < mixed[60, 20].sum(), "a darker line where the tier changes"


@pytest.mark.parametrize("size", [(70, 100), (33, 31), (1, 500)])
@pytest.mark.parametrize("shape", [(64, 640), (1000, 40)])
def test_pixels_of_a_map_know_their_tile(size, shape):
    tiles = tile_map(size)
    rows, columns = tiles.tiles_at(*shape)
    assert (np.diff(rows) >= 0).all() and (np.diff(columns) >= 0).all()
    assert rows[0] == columns[0] == 0
    assert (rows[-1] + 1, columns[-1] + 1) == tiles.routes.shape


@pytest.mark.parametrize("tiers", [1, 2, 3, 7])
def test_tiers_have_colours_of_their_own(tiers):
    tiles = TileMap(tuple("abcdefg"[:tiers]), np.zeros((1, 1), int), (9, 9), 32)
    assert len(tiles.tints) == tiers
    assert len({tuple(tint) for tint in tiles.tints.tolist()}) == min(tiers, 6)


def test_the_legend_has_room_for_long_names():
    label = "file:/models/a/very/long/path/" + 40 * "x" + ".safetensors"
    tiles = TileMap((label, "b"), np.zeros((1, 1), int), (100, 20), 128)
    assert routing_map(Image.new("L", (20, 100)), tiles).width > 600


def test_easy_images_look_easy_and_hard_tiles_yellow():
    tiles = TileMap(("a", "b"), np.zeros((1, 2), int), (32, 64), 32)
    easy = DifficultyMap(np.array([[0.0, (0.01 / 255) ** 2]]), "errors")
    assert np.abs(easy.colours(tiles, 40, 40)[20, 35] - RAMP[0]).max() < 3
    hard = DifficultyMap(np.array([[0.0, (20 / 255) ** 2]]), "errors")
    assert hard.high == pytest.approx(20)
    np.testing.assert_allclose(hard.colours(tiles, 40, 40)[20, 35], RAMP[-1], atol=1e-3)
    unscored = DifficultyMap(np.zeros((1, 2)), "none")
    assert (unscored.colours(tiles, 4, 4) == 255).all()
    np.testing.assert_allclose(ramp(np.array([-1.0, 0.0, 1.0, 2.0])), RAMP[[0, 0, -1, -1]])
