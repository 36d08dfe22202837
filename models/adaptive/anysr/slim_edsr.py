"""The EDSR encoder of AnySR, which can run with only the first of its hidden channels.

arXiv 2407.04241, sections 3.2 and 3.3. What a block computes is weighed, channel by channel, by
what the whole window holds of it and by the scale.
"""

from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tierscale.models.adaptive.anysr.gate import Gate, band, empty, fed
from tierscale.models.contract.modules import module_list
from tierscale.models.runtime.stages import Rejoin
from tierscale.models.runtime.stream import Convolve, at_least_float32, bands


def tap_sums(x: Tensor, total: Tensor) -> Tensor:
    """What each tap of a 3x3 convolution with zeros around x (N, C, h, w) sees: (N, C, 3, 3).

    total: sums of x, (N, C). The mean of the convolution's output follows from it alone.
    """
    # Rows that the tap of row -1, 0, 1 does not see.
    dtype, none = total.dtype, torch.zeros_like(total)
    rows = [x[:, :, -1].sum(dim=2, dtype=dtype), none, x[:, :, 0].sum(dim=2, dtype=dtype)]
    columns = [x[..., -1].sum(dim=2, dtype=dtype), none, x[..., 0].sum(dim=2, dtype=dtype)]
    both = [
        [none if i is None or j is None else x[:, :, i, j] for j in (-1, None, 0)]
        for i in (-1, None, 0)
    ]
    seen = [total - rows[i] - columns[j] + both[i][j] for i in range(3) for j in range(3)]
    return torch.stack(seen, dim=2).unflatten(2, (3, 3))


class EdsrBlock(nn.Module):
    """EDSR's residual block with a gate on its hidden channels, of which the first are computed."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(features, features, 3, padding=1)
        self.gate = Gate(features, 2 * features)
        self.second = nn.Conv2d(features, features, 3, padding=1)

    def kept(self, width: float) -> int:
        """Hidden channels at a share of `width`, rounded down, at least one."""
        return max(1, int(self.first.out_channels * width))

    def forward(self, x: Tensor, scale: Fraction, width: float) -> Tensor:
        kept = self.kept(width)
        hidden = F.conv2d(
            x, self.first.weight[:kept], self.first.get_parameter("bias")[:kept], padding=1
        )
        gate = self.gate(hidden.mean(dim=(2, 3), dtype=at_least_float32(x.dtype)), scale).to(
            x.dtype
        )
        return x + F.conv2d(
            F.relu(hidden * gate[:, :, None, None]),
            self.second.weight[:, :kept],
            self.second.bias,
            padding=1,
        )

    def advance(
        self, x: Tensor, result: Tensor, total: Tensor, scale: Fraction, width: float
    ) -> Tensor:
        """The block on one window of sums `total` (1, C), a few rows at a time; its sums (1, C).

        x, result: maps (1, C, h + 2, w) whose first and last rows are zeros. The gate is known
        before the hidden channels are, and being positive it can be drawn through the ReLU into the
        second convolution.
        """
        kept, inner = self.kept(width), x[:, :, 1:-1]
        (height, columns), sums, row = inner.shape[2:], torch.zeros_like(total), 1
        first, bias = self.first.weight[:kept], self.first.get_parameter("bias")[:kept]
        gate = self.gate(
            F.linear(tap_sums(inner, total).flatten(1), first.to(total.dtype).flatten(1))
            / (height * columns)
            + bias,
            scale,
        )
        second = (
            (self.second.weight[:, :kept] * gate[:, :, None, None])
            .to(x.dtype)
            .contiguous(memory_format=torch.channels_last)
        )
        cuts = list(bands(height, columns, 1, band()))
        # Hidden rows of a band stand behind the last two of the one before; the first row of all is
        # of zeros, and so is the one after them.
        room = max(stop - start for start, stop in cuts) + 3
        hidden, held = empty(x, kept, room, columns), 1
        hidden[:, :, 0] = 0
        for start, stop in cuts:
            convolved = F.conv2d(x[:, :, start : stop + 2], first, bias, padding=(0, 1))
            torch.clamp_min(convolved, 0, out=hidden[:, :, held : held + stop - start])
            held += stop - start
            if stop == height:
                hidden[:, :, held] = 0
                held += 1
            convolved = F.conv2d(hidden[:, :, :held], second, self.second.bias, padding=(0, 1))
            rows = slice(row, row + held - 2)
            torch.add(x[:, :, rows], convolved, out=result[:, :, rows])
            sums += result[:, :, rows].sum(dim=(2, 3), dtype=total.dtype)
            hidden[:, :, :2] = hidden[:, :, held - 2 : held].clone()
            row, held = rows.stop, 2
        return sums

    def cost(self, pixels: int, width: float) -> int:
        """Multiply-adds for one window of so many pixels, as streamed."""
        kept, features = self.kept(width), self.first.out_channels
        return 18 * features * kept * pixels + 9 * features * kept + self.gate.cost(kept)


class SlimEdsr(nn.Module):
    """EDSR without its enlarging part, of slim blocks: (N, 3, h, w) -> (N, features, h, w)."""

    def __init__(self, blocks: int = 16, features: int = 64) -> None:
        super().__init__()
        self.features = features
        self.entry = nn.Conv2d(3, features, 3, padding=1)
        self.blocks = module_list(EdsrBlock(features) for _ in range(blocks))
        self.join = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, x: Tensor, scale: Fraction, width: float) -> Tensor:
        """The form that is trained.

        scale: input of the gates; width: share of the hidden channels, above 0 to 1.
        """
        entered = x = self.entry(x)
        for block in self.blocks:
            x = block(x, scale, width)
        return entered + self.join(x)

    def run(self, x: Tensor, scale: Fraction, width: float) -> Tensor:
        """The same for one window (1, 3, h, w), a few rows at a time."""
        entered = fed(Convolve.of(self.entry), x, 1)
        total = entered.sum(dim=(2, 3), dtype=at_least_float32(entered.dtype))
        # Each block reads one map and writes the other, so that its rows need not be copied; a row
        # of zeros lies above and below.
        high, wide = x.shape[2] + 2, x.shape[3]
        maps = [empty(entered, self.features, high, wide) for _ in range(2)]
        for one in maps:
            one[:, :, [0, -1]] = 0
        maps[0][:, :, 1:-1] = entered
        for block in self.blocks:
            total = block.advance(maps[0], maps[1], total, scale, width)
            maps.reverse()
        del maps[1]  # so that the end needs no more than memory() tells
        return fed(Rejoin(entered, Convolve.of(self.join)), maps[0][:, :, 1:-1], 1)

    def cost(self, pixels: int, width: float) -> int:
        """Multiply-adds of run() for one window of so many pixels."""
        ends = 9 * self.features * (3 + self.features) * pixels
        return ends + sum(block.cost(pixels, width) for block in self.blocks)
