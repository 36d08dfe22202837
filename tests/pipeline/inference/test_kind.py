"""Where an image is looked at, and what is made of the pixels there."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tierscale.models.kind import SIDE
from tierscale.pipeline.inference.kind import SIDES, look, places


@pytest.mark.parametrize(
    ("height", "width", "count"), [(64, 64, 1), (20, 500, 8), (65, 64, 2), (1000, 5000, 64)]
)
def test_places_are_of_one_size_inside_and_reach_all_edges(height, width, count):
    found = places(height, width)
    assert len(found) == count <= SIDES**2
    assert {(at.y.length, at.x.length) for at in found} == {(min(SIDE, height), min(SIDE, width))}
    assert min(at.y.start for at in found) == min(at.x.start for at in found) == 0
    assert max(at.y.stop for at in found) == height and max(at.x.stop for at in found) == width
    assert len({(at.y.start, at.x.start) for at in found}) == count


@pytest.mark.parametrize(("colour", "channels"), [("grey", 1), ("rgb", 3)])
def test_the_network_is_given_three_channels_of_0_to_1(colour, channels):
    pixels = np.random.default_rng(1).integers(0, 256, (channels, 100, 130), np.uint8)
    seen = []

    def network(tiles, compression):
        seen.append((tiles, compression))
        return torch.tensor([[0.0, 0.0, 0.0, -5.0, 0.0, 0.0]] * len(tiles))

    draft = SimpleNamespace(colour=colour, alpha=None)
    some = places(100, 130)
    found = look(draft, lambda a, b, c, d: pixels[:, a:b, c:d], network, some, quality=60)
    ((tiles, compression),) = seen
    assert found.kind.jpeg_quality == 60, "the tables of a file come before the estimate"
    assert torch.allclose(compression, torch.tensor([1.0, 0.4]).expand(len(some), 2))
    assert tiles.shape == (len(some), 3, SIDE, SIDE)
    last = some[-1]
    wanted = np.broadcast_to(pixels[:, *last.slices], (3, SIDE, SIDE)) / 255
    assert np.allclose(tiles[-1].numpy(), wanted, atol=1e-6)
