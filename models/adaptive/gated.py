"""Residual blocks that count only where a depth goes beyond them (AdaDSR, arXiv 2004.03915,
equation 4), computed where they count.

Block i is weighed by min(max(depth - i, 0), 1). Its second convolution is needed where that is
above 0, its first one within a pixel of there. Depths nest: where a block is not needed, no later
one is.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from tierscale.models.backbones import edsr, rcan
from tierscale.models.runtime.sparse_blocks import SIDE, Cells

Block = edsr.Block | rcan.Block

# A block that more than this share of the cells need is computed in the whole window, which is
# cheaper for each pixel.
DENSE = 0.85


class Gated:
    """The features of one window, on their way through blocks that count here and there.

    x: (1, C, h, w); it is not written to. origin: row and column of its first pixel in a grid that
    the cells of the work should fall in.
    """

    def __init__(self, x: Tensor, origin: tuple[int, int] = (0, 0)) -> None:
        self.cells = Cells(x.shape[2], x.shape[3], x.device, (origin[0] % SIDE, origin[1] % SIDE))
        self.whole = x
        # Features and hidden channels of the cells, once not all are computed any more.
        self.sheets: tuple[Tensor, Tensor] | None = None

    @property
    def features(self) -> Tensor:
        """(1, C, h, w) behind all blocks so far."""
        return self.whole if self.sheets is None else self.cells.window(self.sheets[0])

    def run(self, blocks: Sequence[Block], depths: Tensor) -> int:
        """Run blocks, of which as many count at a place as depths (1, 1, h, w) say; the
        multiply-adds executed.
        """
        cells, macs, number = self.cells, 0, 0
        depth = cells.values(depths)
        deepest = depth.amax(dim=(1, 2, 3))
        while (
            self.sheets is None
            and number < len(blocks)
            and (deepest > number).float().mean() > DENSE
        ):
            self.whole = _dense(blocks[number], self.whole, (depths - number).clamp_(0, 1))
            macs += cost(blocks[number], 2 * depths.numel())
            number += 1
        if number == len(blocks) or not (deepest > number).any():
            return macs
        if self.sheets is None:
            self.sheets = (
                cells.sheet(self.whole.shape[1], self.whole),
                cells.sheet(self.whole.shape[1], self.whole),
            )
            cells.window(self.sheets[0]).copy_(self.whole)
        sheet, hidden = self.sheets
        nearby = cells.values(spread(depths)).amax(dim=(1, 2, 3))
        for block in blocks[number:]:
            first, second = (nearby > number).nonzero()[:, 0], (deepest > number).nonzero()[:, 0]
            if not len(second):
                break
            for some, made in cells.convolve(sheet, first, block.first):
                cells.put(hidden, some, made.relu_())
            cells.bound(hidden)
            _second(cells, sheet, hidden, second, block, depth - number)
            macs += cost(block, (len(first) + len(second)) * SIDE**2)
            number += 1
        return macs


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
    made = block.residual(x).mul_(gate)
    if isinstance(block, rcan.Block):
        made.mul_(block.attention(made))
    return made.add_(x)


def _second(
    cells: Cells, sheet: Tensor, hidden: Tensor, where: Tensor, block: Block, above: Tensor
) -> None:
    """Add a block's residual at some cells; above: how far the depth goes beyond the block, (all
    cells, 1, SIDE, SIDE).
    """
    kept = []
    for some, made in cells.convolve(hidden, where, block.second):
        made.mul_(above.index_select(0, some).clamp_(0, 1))
        if isinstance(block, rcan.Block):
            kept.append((some, made))
        else:
            cells.add(sheet, some, made if block.res_scale == 1 else made.mul_(block.res_scale))
    if isinstance(block, rcan.Block):
        # The attention weighs by the mean over the whole window, where all other places hold zeros.
        total = torch.stack([made.sum(dim=(0, 2, 3)) for _, made in kept]).sum(dim=0)
        weights = block.attention.weigh(total.view(1, -1, 1, 1) / (cells.height * cells.width))
        for some, made in kept:
            cells.add(sheet, some, made.mul_(weights))


def cost(block: Block, places: int) -> int:
    """Multiply-adds of `places` results of either convolution, and of an attention."""
    attention = 0
    if isinstance(block, rcan.Block):
        attention = block.attention.squeeze.weight.numel() + block.attention.excite.weight.numel()
    return places * block.first.weight.numel() + attention
