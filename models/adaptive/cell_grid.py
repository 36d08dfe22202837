"""Cells of a grid over the whole image, in which places decide together (APE, AdaDSR)."""

import torch
import torch.nn.functional as F
from torch import Tensor


def cell_means(maps: Tensor, side: int) -> Tensor:
    """Means of maps (N, C, h, w) over cells of `side` pixels: (N, C, rows, columns).

    Cells are counted from the first pixel, and cut at the far edges.
    """
    return F.avg_pool2d(maps, side, ceil_mode=True, count_include_pad=False)


class CellGrid:
    """The cells, `side` pixels each, that a window of the image shows of a grid over all of it.

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
