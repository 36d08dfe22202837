"""Leaving a network cell by cell, in place of window by window (APE, arXiv 2203.11589).

The paper cuts an image into patches and runs each by itself, up to its own exit. Here the picture
stays in one piece and is decided for in cells of a grid that covers the whole image: a cell that
has left keeps its features, and those that go on see them around. No border of a patch can show,
nothing is computed twice, and how an image is cut into windows hardly matters.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tierscale.models.adaptive.gated import Block, Gated, cost


def cell_means(maps: Tensor, side: int) -> Tensor:
    """Means of maps (N, C, h, w) over cells of `side` pixels from the first pixel on, cut at the
    far edges: (N, C, rows, columns).
    """
    return F.avg_pool2d(maps, side, ceil_mode=True, count_include_pad=False)


class Lattice:
    """The cells, `side` pixels each, of a grid that begins at the image's corner, as a window of it
    shows them.

    origin: row and column of the window's first pixel. height, width: of the window. Cells at its
    edges may be cut.
    """

    def __init__(self, origin: tuple[int, int], height: int, width: int, side: int) -> None:
        self.origin, self.height, self.width, self.side = origin, height, width, side
        self.before = (origin[0] % side, origin[1] % side)
        self.rows, self.columns = (
            -(-(b + length) // side) for b, length in zip(self.before, (height, width), strict=True)
        )
        inside = [
            torch.tensor(
                [min(length, (i + 1) * side - b) - max(0, i * side - b) for i in range(count)]
            )
            for b, length, count in zip(
                self.before, (height, width), (self.rows, self.columns), strict=True
            )
        ]
        self.pixels = inside[0][:, None] * inside[1]  # (rows, columns), of each cell

    def means(self, features: Tensor) -> Tensor:
        """Mean of features (1, C, h, w) over each cell: (rows * columns, C)."""
        (top, left), side = self.before, self.side
        below, right = self.rows * side - top - self.height, self.columns * side - left - self.width
        maps = F.pad(features.permute(0, 2, 3, 1), (0, 0, left, right, top, below))
        # Rows first, over all that lies side by side: an eighth of the time of a sum over both.
        rows = maps.reshape(self.rows, side, -1).sum(dim=1)
        sums = rows.view(self.rows, self.columns, side, -1).sum(dim=2).flatten(0, 1)
        return sums / self.pixels.view(-1, 1).to(sums)

    def spread(self, cells: Tensor) -> Tensor:
        """Values of cells (rows * columns,) at their pixels: (h, w)."""
        (top, left), side = self.before, self.side
        wide = (
            cells.view(self.rows, self.columns)
            .repeat_interleave(side, dim=0)
            .repeat_interleave(side, dim=1)
        )
        return wide[top : top + self.height, left : left + self.width]


def leave(
    intervals: Sequence[Sequence[Block]],
    entered: Tensor,
    lattice: Lattice,
    leaves: Callable[[Tensor], Tensor],
    whole: Callable[[Sequence[Block], Tensor], Tensor],
) -> tuple[Tensor, Tensor, int, int]:
    """Run blocks until all cells have left: features (1, C, h, w), exits (rows * columns,),
    multiply-adds, and cells asked in all.

    intervals: the blocks before each exit, and those behind the last one. entered: features (1, C,
    h, w), which stay as they are. leaves: of the mean features of some cells (n, C), which of them
    leave. whole: features behind blocks that all cells need. Exits count from 0; -1: a cell that
    never left.
    """
    body, macs, asked = entered, 0, 0
    some: Gated | None = None
    exits = torch.full((lattice.rows * lattice.columns,), -1, device=entered.device)
    for index, blocks in enumerate(intervals):
        staying = exits < 0
        if not blocks or not staying.any():
            break
        if staying.all():
            body = whole(blocks, body)
            macs += sum(cost(block, 2 * lattice.height * lattice.width) for block in blocks)
        else:
            some = some or Gated(body, lattice.origin)
            macs += some.run(
                blocks, lattice.spread(staying.to(body.dtype) * len(blocks))[None, None]
            )
            body = some.features
        if index < len(intervals) - 1:
            asked += int(staying.sum())
            exits[staying] = torch.where(leaves(lattice.means(body)[staying]), index, -1)
    return body, exits, macs, asked
