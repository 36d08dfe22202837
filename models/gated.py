"""Residual blocks that count only where a depth goes beyond them (AdaDSR, arXiv 2004.03915, equation 4), computed where they count.

Block i is weighed by min(max(depth - i, 0), 1). Its second convolution is needed where that is above 0, its first one within a pixel of
there. Depths nest: where a block is not needed, no later one is.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from models import edsr, rcan
from models.cells import SIDE, Cells

Block = edsr.Block | rcan.Block

# A block that more than this share of the cells need is computed in the whole window, which is cheaper for each pixel.
DENSE = 0.85


def run_gated(blocks: Sequence[Block], x: Tensor, depths: Tensor, origin: tuple[int, int] = (0, 0)) -> tuple[Tensor, int]:
    """Features (1, C, h, w) behind all blocks, and the multiply-adds executed.

    depths: (1, 1, h, w), in blocks. origin: row and column of the first pixel in a grid that the cells of the work should fall in.
    """
    cells, spent, number = Cells(x.shape[2], x.shape[3], x.device, (origin[0] % SIDE, origin[1] % SIDE)), 0, 0
    depth = cells.values(depths)
    deepest = depth.amax(dim=(1, 2, 3))
    while number < len(blocks) and (deepest > number).float().mean() > DENSE:
        x, spent = _dense(blocks[number], x, (depths - number).clamp_(0, 1)), spent + cost(blocks[number], 2 * x.shape[2] * x.shape[3])
        number += 1
    if number == len(blocks) or not (deepest > number).any():
        return x, spent
    nearby = cells.values(spread(depths)).amax(dim=(1, 2, 3))
    sheet, hidden = cells.sheet(x.shape[1], x), cells.sheet(x.shape[1], x)
    cells.window(sheet).copy_(x)
    for block in blocks[number:]:
        first, second = (nearby > number).nonzero()[:, 0], (deepest > number).nonzero()[:, 0]
        if not len(second):
            break
        for some, made in cells.convolve(sheet, first, block.first):
            cells.put(hidden, some, made.relu_())
        cells.bound(hidden)
        _second(cells, sheet, hidden, second, block, depth - number)
        spent += cost(block, (len(first) + len(second)) * SIDE**2)
        number += 1
    return cells.window(sheet), spent


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


def _second(cells: Cells, sheet: Tensor, hidden: Tensor, where: Tensor, block: Block, above: Tensor) -> None:
    """Add a block's residual at some cells; above: how far the depth goes beyond the block, (all cells, 1, SIDE, SIDE)."""
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
