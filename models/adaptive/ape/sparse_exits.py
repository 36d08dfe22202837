"""Leaving a network cell by cell, in place of window by window (APE, arXiv 2203.11589).

The paper cuts an image into patches and runs each by itself, up to its own exit. Here the picture
stays in one piece and is decided for in cells of a grid that covers the whole image: a cell that
has left keeps its features, and those that go on see them around. No border of a patch can show,
nothing is computed twice, and how an image is cut into windows hardly matters.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tierscale.models.adaptive.cell_grid import CellGrid
from tierscale.models.adaptive.gated import Block, Gated, cost


def leave(
    intervals: Sequence[Sequence[Block]],
    entered: Tensor,
    grid: CellGrid,
    leaves: Callable[[Tensor], Tensor],
    whole: Callable[[Sequence[Block], Tensor], Tensor],
) -> tuple[Tensor, Tensor, int, int]:
    """Run blocks until all cells have left.

    Features (1, C, h, w), exits (rows * columns,), multiply-adds, and how often a cell was asked.
    Exits count from 0; -1: a cell that never left. intervals: the blocks before each exit, and
    those behind the last one. entered: features (1, C, h, w), which stay as they are. leaves: of
    the mean features of some cells (n, C), which of them leave. whole: features behind blocks that
    all cells need.
    """
    body, macs, questions = entered, 0, 0
    some: Gated | None = None
    exits = torch.full((grid.rows * grid.columns,), -1, device=entered.device)
    for index, blocks in enumerate(intervals):
        staying = exits < 0
        if not blocks or not staying.any():
            break
        if staying.all():
            body = whole(blocks, body)
            macs += sum(cost(block, 2 * grid.height * grid.width) for block in blocks)
        else:
            some = some or Gated(body, grid.origin)
            macs += some.run(blocks, grid.spread(staying.to(body.dtype) * len(blocks))[None, None])
            body = some.features
        if index < len(intervals) - 1:
            questions += int(staying.sum())
            exits[staying] = torch.where(leaves(grid.means(body)[staying]), index, -1)
    return body, exits, macs, questions
