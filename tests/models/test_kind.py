"""The network that judges kinds of pictures: shapes, its file, and how tiles become a verdict."""

from fractions import Fraction

import pytest
import torch
from torch import nn

from tierscale.models.kind import (
    FAMILIES,
    OUTPUTS,
    UNITS,
    KindNetwork,
    judge,
    read_kind_network,
    write_kind_network,
)


class Fixed(nn.Module):
    """Says the same of every tile, in the units of the network's outputs."""

    def __init__(self, rows):
        super().__init__()
        self.rows = torch.tensor(rows, dtype=torch.float32)

    def forward(self, tiles, compression):
        return self.rows


@pytest.mark.parametrize("shape", [(3, 3, 64, 64), (1, 3, 16, 40), (2, 3, 33, 64)])
def test_it_takes_tiles_of_any_size(shape):
    found = KindNetwork(Fraction(4))(torch.rand(shape), torch.zeros(shape[0], 2))
    assert found.shape == (shape[0], OUTPUTS)


def test_a_network_is_stored_and_read(tmp_path):
    torch.manual_seed(1)
    network, tiles = KindNetwork(Fraction(3)), torch.rand(2, 3, 64, 64)
    write_kind_network(tmp_path / "kind.safetensors", network, {"images": 3})
    again = read_kind_network(tmp_path / "kind.safetensors")
    assert again.scale == 3 and len(again.weights) == 64
    # Weights are stored in 16 bits.
    for file in (torch.zeros(2, 2), torch.ones(2, 2)):
        assert torch.allclose(again(tiles, file), network(tiles, file), atol=2e-3)
    assert not torch.allclose(network(tiles, torch.zeros(2, 2)), network(tiles, torch.ones(2, 2)))


def test_another_file_is_refused(tmp_path):
    from tierscale.models.registry import locate

    with pytest.raises(ValueError, match="no network that judges kinds"):
        read_kind_network(locate("fsrcnn-x4"))


def test_the_kind_is_the_median_and_errors_are_means():
    # Three tiles: blur, grain, compression, then logarithms of bicubic's error and of ratios.
    rows = [
        [0.1, 0.2, 0.5, -6.0, -0.1, -0.2],
        [0.2, 0.4, 0.4, -6.0, -0.1, -0.2],
        [0.9, 0.9, 0.0, -4.0, 0.3, 0.1],
    ]
    found = judge(Fixed(rows), torch.zeros(3, 3, 16, 16), None)
    assert found.kind.blur == pytest.approx(0.2 * UNITS["blur"], abs=1e-5)
    assert found.kind.grain == pytest.approx(0.4 * UNITS["grain"], abs=1e-5)
    assert found.kind.jpeg_quality == 60
    logs = torch.tensor(rows).double()
    assert found.bicubic == pytest.approx(logs[:, 3].exp().mean().item())
    for index, family in enumerate(FAMILIES):
        wanted = (logs[:, 3] + logs[:, 4 + index]).exp().mean().item()
        assert found.families[family] == pytest.approx(wanted)


def test_no_trace_of_compression_is_no_quality():
    found = judge(Fixed([[-0.1, -0.2, 0.03, -6.0, 0.0, 0.0]]), torch.zeros(1, 3, 16, 16), None)
    assert found.kind == type(found.kind)(0.0, 0.0, None)
