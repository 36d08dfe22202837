"""The prescan on arrays: scores depend on a tile alone, ranges on all that has data."""

import numpy as np
import pytest

from tests.plans import EIGHT_BITS, draft_of
from tierscale.models import registry
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.geometry.grid import Span
from tierscale.pipeline.inference.difficulty import blocks, measure, score, tile_place


@pytest.fixture(scope="module")
def network():
    return registry.load("fsrcnn-x4")


def reader(pixels):
    return lambda y0, y1, x0, x1: pixels[:, y0:y1, x0:x1]


def noise(*shape):
    return np.random.default_rng(0).integers(0, 255, shape, np.uint8)


@pytest.mark.parametrize("by_network", [True, False])
def test_a_tile_of_one_colour_is_worth_no_network(network, by_network):
    pixels = noise(3, 32, 64)
    pixels[:, :, :32] = 77
    known = network if by_network else None
    scores = score(draft_of((32, 64)), EIGHT_BITS, reader(pixels), Span(0, 1), known)
    assert scores.shape == (1, 2)
    assert scores[0, 0] == 0 < scores[0, 1]


@pytest.mark.parametrize("by_network", [True, False])
def test_rows_scored_apart_are_those_scored_together(network, by_network):
    """However workers share the rows, and however many columns there are beside a tile."""
    draft, pixels = draft_of((110, 330)), noise(3, 110, 330)
    known = network if by_network else None
    rows = draft.grid.tiles[0]
    whole = score(draft, EIGHT_BITS, reader(pixels), Span(0, rows), known)
    apart = [
        score(draft, EIGHT_BITS, reader(pixels), Span(row, row + 1), known) for row in range(rows)
    ]
    np.testing.assert_array_equal(np.concatenate(apart), whole)


@pytest.mark.parametrize("by_network", [True, False])
def test_more_contrast_is_harder(network, by_network):
    pixels = noise(3, 32, 64)
    pixels[:, :, :32] //= 4
    known = network if by_network else None
    scores = score(draft_of((32, 64)), EIGHT_BITS, reader(pixels), Span(0, 1), known)[0]
    assert scores[1] > 4 * scores[0] > 0


def test_the_last_tile_slides_inwards_so_that_all_have_one_shape():
    grid = draft_of((50, 70)).grid
    assert [tile_place(index, grid, 1) for index in range(3)] == [
        Span(0, 32),
        Span(32, 64),
        Span(38, 70),
    ]
    assert tile_place(0, draft_of((20, 70)).grid, 0) == Span(0, 20)


def test_a_range_leaves_alpha_and_missing_pixels_out():
    pixels = np.full((2, 6, 5), 9.0, np.float32)
    pixels[0, 2, 3], pixels[0, 4, 4], pixels[1] = 2.0, 12.0, 500.0
    pixels[:, 0, 0] = -1.0
    pixels[:, 5, 0] = 99.0, 0.0
    pixels[:, 5, 1] = np.nan, 0.0
    assert measure(reader(pixels), Span(0, 6), 5, -1.0, "straight") == (2.0, 12.0)
    assert measure(reader(pixels), Span(0, 3), 5, -1.0, "straight") == (2.0, 9.0)
    assert measure(reader(pixels), Span(0, 5), 5, -1.0, None) == (2.0, 500.0)
    assert measure(reader(pixels), Span(0, 1), 1, -1.0, None) == (np.inf, -np.inf)


def test_a_value_that_no_network_can_enlarge_is_refused_with_its_place():
    pixels = np.zeros((1, 6, 5), np.float32)
    pixels[0, 4, 3] = np.nan
    with pytest.raises(Refused, match=r"row 4, column 3, channel 0 is nan, .* --nodata nan"):
        measure(reader(pixels), Span(2, 6), 5, None, None)
    assert measure(reader(pixels), Span(2, 6), 5, float("nan"), None) == (0.0, 0.0)


def test_blocks_cover_a_length_once():
    assert blocks(10, 4) == [Span(0, 4), Span(4, 8), Span(8, 10)]
