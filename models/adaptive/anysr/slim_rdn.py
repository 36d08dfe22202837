"""The RDN encoder of AnySR, which can run with only the first of some channels.

arXiv 2407.04241, sections 3.2 and 3.3.
"""

from collections.abc import Iterator
from fractions import Fraction
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tierscale.models.adaptive.anysr.gate import Gate, band, fed
from tierscale.models.backbones.rdn import Dense
from tierscale.models.contract.modules import module_list
from tierscale.models.runtime.stages import Rejoin, feed
from tierscale.models.runtime.stream import Convolve, at_least_float32


class RdnBlock(nn.Module):
    """RDN's dense block of eight convolutions, the fifth and seventh slim, with a gate at the end.

    As in the upstream code, the gate's channels are as many as the slim convolutions make, counted
    from the end, and a convolution that sees fewer channels than it was made for uses its first
    weights.
    """

    LAYERS, SLIM = 8, (4, 6)

    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        self.growth = growth
        self.layers = module_list(
            nn.Conv2d(features + index * growth, growth, 3, padding=1)
            for index in range(self.LAYERS)
        )
        self.gate = Gate(2 * growth, 256)
        self.fuse = nn.Conv2d(features + self.LAYERS * growth, features, 1)

    def kept(self, width: float) -> int:
        """Channels of a slim convolution at a share of `width`, rounded down, at least one."""
        return max(1, int(self.growth * width))

    def slices(self, width: float) -> list[tuple[Tensor, Tensor]]:
        """Weight and bias of each convolution, as far as they are used."""
        known, parts = self.fuse.out_channels, []
        for index, layer in enumerate(self.layers):
            count = self.kept(width) if index in self.SLIM else self.growth
            parts.append((layer.weight[:count, :known], layer.get_parameter("bias")[:count]))
            known += count
        return parts

    def forward(self, x: Tensor, scale: Fraction, width: float) -> Tensor:
        known = x
        for weight, bias in self.slices(width):
            known = torch.cat([known, F.relu(F.conv2d(known, weight, bias, padding=1))], dim=1)
        late = known[:, -2 * self.kept(width) :]
        early = known[:, : -late.shape[1]]
        means = late.mean(dim=(2, 3), dtype=at_least_float32(late.dtype))
        gated = late * self.gate(means, scale)[:, :, None, None].to(late.dtype)
        return x + F.conv2d(
            torch.cat([early, gated], dim=1), self.fuse.weight[:, : known.shape[1]], self.fuse.bias
        )

    def run(self, x: Tensor, scale: Fraction, width: float) -> None:
        """The same for one window x (1, C, h, w), in its place.

        The gated channels wait until their means are known.
        """
        parts = self.slices(width)
        late = 2 * self.kept(width)
        early = sum(len(weight) for weight, _ in parts) + x.shape[1] - late
        dtype = at_least_float32(x.dtype)
        row, waiting, total = 0, [], x.new_zeros(1, late, dtype=dtype)
        for known in feed(
            Dense([Convolve(weight, bias) for weight, bias in parts]), x, self.LAYERS, band()
        ):
            waiting.append(known[:, early:].clone())
            total += waiting[-1].sum(dim=(2, 3), dtype=dtype)
            x[:, :, row : row + known.shape[2]] += F.conv2d(
                known[:, :early], self.fuse.weight[:, :early], self.fuse.bias
            )
            row += known.shape[2]
        gate = self.gate(total / (x.shape[2] * x.shape[3]), scale)
        fuse = self.fuse.weight[:, early : early + late] * gate[:, :, None, None]
        weight, row = fuse.to(x.dtype), 0
        for rows in waiting:
            x[:, :, row : row + rows.shape[2]] += F.conv2d(rows, weight)
            row += rows.shape[2]

    def cost(self, pixels: int, width: float) -> int:
        """Multiply-adds for one window of so many pixels."""
        parts = [weight for weight, _ in self.slices(width)]
        known = parts[0].shape[1] + sum(len(weight) for weight in parts)
        return (
            sum(weight.numel() for weight in parts) + known * self.fuse.out_channels
        ) * pixels + self.gate.cost(2 * self.kept(width))


class SlimRdn(nn.Module):
    """RDN without its enlarging part, of slim blocks: (N, 3, h, w) -> (N, features, h, w)."""

    def __init__(self, blocks: int = 16, features: int = 64, growth: int = 64) -> None:
        super().__init__()
        self.features = features
        self.first, self.second = (
            nn.Conv2d(3, features, 3, padding=1),
            nn.Conv2d(features, features, 3, padding=1),
        )
        self.blocks = module_list(RdnBlock(features, growth) for _ in range(blocks))
        self.fuse, self.join = (
            nn.Conv2d(blocks * features, features, 1),
            nn.Conv2d(features, features, 3, padding=1),
        )

    def forward(self, x: Tensor, scale: Fraction, width: float) -> Tensor:
        """The form that is trained.

        scale: input of the gates; width: share of the hidden channels, above 0 to 1.
        """
        first = self.first(x)
        body, bodies = self.second(first), []
        for block in self.blocks:
            body = block(body, scale, width)
            bodies.append(body)
        return first + self.join(self.fuse(torch.cat(bodies, dim=1)))

    def run(self, x: Tensor, scale: Fraction, width: float) -> Tensor:
        """The same for one window (1, 3, h, w), a few rows at a time."""
        first = fed(Convolve.of(self.first), x, 1)
        body = fed(Convolve.of(self.second), first, 1)
        weights = self.fuse.weight.split(self.features, dim=1)

        def parts() -> Iterator[Tensor]:
            """What each block adds to fuse's result, whose bias comes with the first."""
            bias = self.fuse.bias
            for block, weight in zip(self.blocks, weights, strict=True):
                block.run(body, scale, width)
                yield F.conv2d(body, weight, bias)
                bias = None

        return fed(Rejoin(first, Convolve.of(self.join)), reduce(Tensor.add_, parts()), 1)

    def cost(self, pixels: int, width: float) -> int:
        """Multiply-adds of run() for one window of so many pixels."""
        ends = self.features * (27 + 18 * self.features + self.fuse.in_channels) * pixels
        return ends + sum(block.cost(pixels, width) for block in self.blocks)
