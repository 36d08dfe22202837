"""3x3 convolutions at some places of a map only.

The map is cut into cells, and those that hold a needed place are gathered, convolved as a batch,
and put back. There a convolution costs a pixel what it costs in a whole map (measured); the copying
adds a tenth.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Pixels a side. Measured with 24 to 64 channels on photographs: of cells of 4x4 a tenth less is
# computed, at a tenth more for each pixel; of cells of 16x16 an eighth more is computed.
SIDE = 8
# Cells at a time on a CPU: 128 cells of 32 float channels are 1 MiB, about what a core's own cache
# holds.
BATCH = 128


class SparseBlocks:
    """The cells of a window of `height` by `width` pixels, and the buffers that hold its maps.

    Cells are numbered by rows. before: rows and columns, 0 .. SIDE - 1, of the first cell that lie
    before the window's first pixel.

    A buffer (rows, columns, C) holds whole cells, and zeros around: a row above, two below, and
    SIDE columns on the left, which are also what follows on the right of the row before. So the
    SIDE pixels that a cell has in a row are copied as one piece.
    """

    def __init__(
        self, height: int, width: int, device: torch.device, before: tuple[int, int] = (0, 0)
    ) -> None:
        self.height, self.width = height, width
        self.top, self.left = 1 + before[0], SIDE + before[1]
        down, across = -(-(before[0] + height) // SIDE), -(-(before[1] + width) // SIDE)
        self.rows, self.columns = down * SIDE + 3, (across + 1) * SIDE
        y, x = (
            torch.arange(down, device=device)[:, None] * SIDE,
            torch.arange(1, across + 1, device=device) * SIDE,
        )
        corner = (y * self.columns + x).view(-1, 1)  # the pixel above the first one of each cell
        steps = torch.arange(SIDE + 2, device=device) * self.columns
        # First pixel of the SIDE + 2 rows that the cell's convolution reads.
        self.around = corner + steps - 1
        # Number of the SIDE rows of the cell, counted in pieces of SIDE pixels.
        self.within = (corner + steps[1:-1]) // SIDE
        self.batch = BATCH if device.type == "cpu" else len(corner)

    def buffer(self, channels: int, like: Tensor) -> Tensor:
        """A buffer of zeros of the type and on the device of a tensor."""
        return like.new_zeros(self.rows, self.columns, channels)

    def window(self, buffer: Tensor) -> Tensor:
        """The window (1, C, height, width) in a buffer, as a view."""
        return buffer[
            self.top : self.top + self.height, self.left : self.left + self.width
        ].permute(2, 0, 1)[None]

    def values(self, window: Tensor) -> Tensor:
        """The values of a window (1, 1, height, width) cell by cell: (cells, 1, SIDE, SIDE).

        Zeros beyond its edges.
        """
        buffer = self.buffer(1, window)
        self.window(buffer).copy_(window)
        return _pieces(buffer).index_select(0, self.within.view(-1)).view(-1, 1, SIDE, SIDE)

    def convolve(
        self, buffer: Tensor, cells: Tensor, layer: nn.Conv2d
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """A 3x3 convolution at some cells, a batch of them after another.

        Yields which ones, (n,), and their results, (n, C, SIDE, SIDE).
        """
        channels = buffer.shape[2]
        wide = buffer.view(-1).as_strided(
            (self.rows * self.columns - SIDE - 1, (SIDE + 2) * channels), (channels, 1)
        )
        for some in cells.split(self.batch):
            gathered = wide.index_select(0, self.around.index_select(0, some).view(-1)).view(
                -1, SIDE + 2, SIDE + 2, channels
            )
            yield some, F.conv2d(gathered.permute(0, 3, 1, 2), layer.weight, layer.bias)

    def put(self, buffer: Tensor, cells: Tensor, values: Tensor) -> None:
        """Write values (n, C, SIDE, SIDE) to cells (n,) of a buffer."""
        _pieces(buffer).index_copy_(0, self.within.index_select(0, cells).view(-1), _rows(values))

    def add(self, buffer: Tensor, cells: Tensor, values: Tensor) -> None:
        """Add values (n, C, SIDE, SIDE) to cells (n,) of a buffer."""
        _pieces(buffer).index_add_(0, self.within.index_select(0, cells).view(-1), _rows(values))

    def bound(self, buffer: Tensor) -> None:
        """Set what lies just beyond the window's edges to zero.

        So a convolution of the whole window sees it.
        """
        buffer[self.top - 1].zero_()
        buffer[self.top + self.height].zero_()
        buffer[:, self.left - 1].zero_()
        if (self.left + self.width) % SIDE:
            buffer[:, self.left + self.width].zero_()


def _pieces(buffer: Tensor) -> Tensor:
    """A buffer as pieces of SIDE pixels, (pieces, SIDE * C)."""
    return buffer.view(-1, SIDE * buffer.shape[2])


def _rows(values: Tensor) -> Tensor:
    """Values (n, C, SIDE, SIDE) as rows of SIDE pixels, (n * SIDE, SIDE * C)."""
    return values.permute(0, 2, 3, 1).reshape(-1, SIDE * values.shape[1])
