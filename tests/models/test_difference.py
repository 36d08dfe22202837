"""Scores of tiles: nothing on one colour, more for more contrast, a tile alone as among others."""

from fractions import Fraction

import pytest
import torch

from tierscale.models import registry
from tierscale.models.difference import difference, local_energy
from tierscale.models.runtime.bicubic import Bicubic

FOUR = Fraction(4)


@pytest.fixture(scope="module")
def fsrcnn():
    return registry.load("fsrcnn-x4")


@pytest.fixture
def tiles():
    return torch.rand(2, 3, 40, 48, generator=torch.Generator().manual_seed(0))


def test_bicubic_does_not_differ_from_bicubic(tiles):
    assert difference(Bicubic(), tiles, FOUR).tolist() == [0, 0]


def test_a_network_differs_where_there_is_something_to_sharpen(fsrcnn, tiles):
    flat = torch.full((1, 3, 40, 48), 0.4)
    assert difference(fsrcnn, flat, FOUR)[0] < 1e-5 < difference(fsrcnn, tiles, FOUR).min()


def test_a_tile_has_the_score_that_it_has_among_others(fsrcnn, tiles):
    alone = torch.cat([difference(fsrcnn, tile[None], FOUR) for tile in tiles])
    torch.testing.assert_close(difference(fsrcnn, tiles, FOUR), alone)


def test_what_lies_at_the_rim_does_not_count(fsrcnn, tiles):
    """The result at the rim depends on what lies beyond, which is not seen."""

    class Wrong:
        def __call__(self, windows, place):
            made = Bicubic()(windows, place)
            made.pixels[..., :16, :] += 0.5
            return made

    assert difference(Wrong(), tiles, FOUR).max() == 0


def test_energy_is_that_of_neighbours_on_both_axes():
    ramp = torch.arange(5.0).expand(1, 3, 4, 5)
    assert local_energy(ramp).tolist() == [1]
    assert local_energy(ramp + ramp.new_tensor([0, 2, 4, 6])[:, None]).tolist() == [5]
    assert local_energy(torch.ones(2, 3, 1, 1)).tolist() == [0, 0]
