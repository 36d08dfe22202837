"""Convolutions at some places of a map."""

import pytest
import torch
from torch import nn

from tierscale.models.runtime.sparse_blocks import SIDE, SparseBlocks

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("before", [(0, 0), (3, 5), (7, 3)])
def test_cells_hold_a_window_and_convolve_it_where_they_are_asked_to(
    before: tuple[int, int],
) -> None:
    torch.manual_seed(0)
    cells, layer = SparseBlocks(21, 13, torch.device("cpu"), before), nn.Conv2d(5, 5, 3, padding=1)
    x = torch.randn(1, 5, 21, 13)
    buffer, made = cells.buffer(5, x), cells.buffer(5, x)
    cells.window(buffer).copy_(x)
    chosen = torch.tensor([1, 2, 5])  # of three rows or four, of two or three cells
    with torch.inference_mode():
        for some, values in cells.convolve(buffer, chosen, layer):
            cells.put(made, some, values)
            cells.add(made, some, values)
        cells.bound(made)
        inside, columns = torch.zeros(32, 32), -(-(before[1] + 13) // SIDE)
        for cell in chosen.tolist():
            inside[cell // columns * SIDE :, cell % columns * SIDE :][:SIDE, :SIDE] = 2
        inside = inside[before[0] : before[0] + 21, before[1] : before[1] + 13]
        torch.testing.assert_close(cells.window(made), layer(x) * inside, atol=1e-5, rtol=1e-5)
    above, left = 1 + before[0], SIDE + before[1]
    assert not made[[above - 1, above + 21]].any() and not made[:, : SIDE - 1].any()
    assert not made[:, [left - 1, (left + 13) % made.shape[1]]].any()
