"""Residual blocks that count only where a depth goes beyond them, computed where they count.

AdaDSR, arXiv 2004.03915, equation 4; APE's cells leave in the same way.

Block i is weighed by min(max(depth - i, 0), 1). Its second convolution is needed where that is
above 0, its first one within a pixel of there. Depths nest: where a block is not needed, no later
one is.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from tierscale.models.backbones import edsr, rcan
from tierscale.models.runtime.sparse_blocks import SIDE, SparseBlocks

Block = edsr.Block | rcan.Block

# A block that more than this share of the cells need is computed in the whole window, which is
# cheaper for each pixel.
DENSE = 0.85


class Gated:
    """The features of one window, on their way through blocks that count here and there.

    x: (1, C, h, w); it is not written to. origin: row and column of its first pixel in a grid that
    the sparse blocks should fall in.
    """

    def __init__(self, x: Tensor, origin: tuple[int, int] = (0, 0)) -> None:
        self.cells = SparseBlocks(
            x.shape[2], x.shape[3], x.device, (origin[0] % SIDE, origin[1] % SIDE)
        )
        self.whole = x
        # Features and hidden channels of the cells, once not all are computed any more.
        self.buffers: tuple[Tensor, Tensor] | None = None

    @property
    def features(self) -> Tensor:
        """(1, C, h, w) behind all blocks so far."""
        return self.whole if self.buffers is None else self.cells.window(self.buffers[0])

    def run(self, blocks: Sequence[Block], depths: Tensor) -> int:
        """Run blocks, of which as many count at a place as depths (1, 1, h, w) say.

        The multiply-adds executed.
        """
        cells, macs, number = self.cells, 0, 0
        depth = cells.values(depths)
        deepest = depth.amax(dim=(1, 2, 3))
        while (
            self.buffers is None
            and number < len(blocks)
            and (deepest > number).float().mean() > DENSE
        ):
            self.whole = _dense(blocks[number], self.whole, (depths - number).clamp_(0, 1))
            macs += cost(blocks[number], 2 * depths.numel())
            number += 1
        if number == len(blocks) or not (deepest > number).any():
            return macs
        buffers = self.buffers = self.buffers or self._begin_sparse()
        nearby = cells.values(spread(depths)).amax(dim=(1, 2, 3))
        for block in blocks[number:]:
            first, second = (nearby > number).nonzero()[:, 0], (deepest > number).nonzero()[:, 0]
            if not len(second):
                break
            for some, values in cells.convolve(buffers[0], first, block.first):
                cells.put(buffers[1], some, values.relu_())
            cells.bound(buffers[1])
            self._add_residual(buffers, block, second, depth - number)
            macs += cost(block, (len(first) + len(second)) * SIDE**2)
            number += 1
        return macs

    def _begin_sparse(self) -> tuple[Tensor, Tensor]:
        """Buffers of the features so far, and of hidden channels."""
        channels = self.whole.shape[1]
        features, hidden = (self.cells.buffer(channels, self.whole) for _ in range(2))
        self.cells.window(features).copy_(self.whole)
        return features, hidden

    def _add_residual(
        self, buffers: tuple[Tensor, Tensor], block: Block, where: Tensor, above: Tensor
    ) -> None:
        """Add a block's residual at the cells `where`, (n,).

        buffers: of features and of the block's hidden channels. above: how far the depth goes
        beyond the block, (all cells, 1, SIDE, SIDE).
        """
        (features, hidden), cells, waiting = buffers, self.cells, []
        for some, values in cells.convolve(hidden, where, block.second):
            values.mul_(above.index_select(0, some).clamp_(0, 1))
            if isinstance(block, rcan.Block):
                waiting.append((some, values))
            else:
                scaled = values if block.res_scale == 1 else values.mul_(block.res_scale)
                cells.add(features, some, scaled)
        if isinstance(block, rcan.Block):
            # The attention weighs by the mean over the whole window, whose other places hold zeros.
            total = torch.stack([values.sum(dim=(0, 2, 3)) for _, values in waiting]).sum(dim=0)
            weights = block.attention.weigh(total.view(1, -1, 1, 1) / (cells.height * cells.width))
            for some, values in waiting:
                cells.add(features, some, values.mul_(weights))


def spread(depths: Tensor) -> Tensor:
    """The largest depth within a pixel of each place, (1, 1, h, w)."""
    result = depths.clone()
    for dim in (2, 3):
        # Twenty times faster than max_pool2d on one channel.
        length, before = depths.shape[dim] - 1, result.clone()
        for to, source in ((0, 1), (1, 0)):
            part = result.narrow(dim, to, length)
            torch.maximum(part, before.narrow(dim, source, length), out=part)
    return result


def _dense(block: Block, x: Tensor, gate: Tensor) -> Tensor:
    """block.gated() in the memory of its own result."""
    residual = block.residual(x).mul_(gate)
    if isinstance(block, rcan.Block):
        residual.mul_(block.attention(residual))
    return residual.add_(x)


def cost(block: Block, places: int) -> int:
    """Multiply-adds of `places` results of either convolution, and of an attention."""
    attention = 0
    if isinstance(block, rcan.Block):
        attention = block.attention.squeeze.weight.numel() + block.attention.excite.weight.numel()
    return places * block.first.weight.numel() + attention
