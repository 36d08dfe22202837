"""RDN: blocks in which every convolution sees all that came before it, all joined at the end.

Zhang, Tian, Kong, Zhong and Fu 2018, "Residual Dense Network for Image Super-Resolution", section
3.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tierscale.models.backbones.edsr import Tail
from tierscale.models.backbones.initial import he
from tierscale.models.contract.modules import module_list
from tierscale.models.runtime.stream import (
    Chain,
    Convolve,
    Delay,
    RowNetwork,
    Skip,
    Stream,
    check_scale,
)


class Block(nn.Module):
    """Residual dense block (equations 5 to 7).

    `layers` 3x3 convolutions of `growth` channels each, a 1x1 that fuses all, and the input.
    """

    def __init__(self, features: int, growth: int, layers: int) -> None:
        super().__init__()
        self.layers = module_list(
            nn.Conv2d(features + index * growth, growth, 3, padding=1) for index in range(layers)
        )
        self.fuse = nn.Conv2d(features + layers * growth, features, 1)

    def forward(self, x: Tensor) -> Tensor:
        known = x
        for layer in self.layers:
            known = torch.cat([known, F.relu(layer(known))], dim=1)
        return x + self.fuse(known)

    def stream(self) -> Stream:
        """The same block, fed by rows."""
        return Skip(
            Chain(Dense([Convolve.of(layer) for layer in self.layers]), Convolve.of(self.fuse))
        )


class Dense:
    """Convolutions fed by rows, each with what entered and what all before it made.

    Gives all of that, side by side as channels.
    """

    def __init__(self, layers: Sequence[Stream]) -> None:
        self.layers, self.delays = layers, [Delay() for _ in layers]

    def push(self, rows: Tensor, last: bool) -> Tensor:
        for layer, delay in zip(self.layers, self.delays, strict=True):
            grown = layer.push(rows, last).relu_()
            rows = torch.cat([delay.match(rows, grown.shape[2]), grown], dim=1)
        return rows


class Together:
    """Stages, one or more, fed by rows one after another.

    Gives what all of them made, side by side as channels.
    """

    def __init__(self, stages: Sequence[Stream]) -> None:
        self.stages, self.delays = stages, [Delay() for _ in stages]

    def push(self, rows: Tensor, last: bool) -> Tensor:
        known = rows = self.stages[0].push(rows, last)
        for stage, delay in zip(self.stages[1:], self.delays[1:], strict=True):
            rows = stage.push(rows, last)
            known = torch.cat([delay.match(known, rows.shape[2]), rows], dim=1)
        return known


class Rdn(RowNetwork):
    """(N, 3, h, w) -> (N, 3, scale * h, scale * w), values around the mean.

    features: channels between blocks; growth: of each convolution; blocks: residual dense blocks;
    layers: convolutions in each.
    """

    def __init__(
        self,
        scale: int = 4,
        features: int = 64,
        growth: int = 64,
        blocks: int = 16,
        layers: int = 8,
    ) -> None:
        super().__init__()
        check_scale("RDN", scale)
        self.scale = scale
        # Entries 2, each layer of each block 1, the join 1, first growing convolution 1; finer ones
        # add less than one pixel more.
        self.reach = 2 + blocks * layers + 3
        self.first, self.second = (
            nn.Conv2d(3, features, 3, padding=1),
            nn.Conv2d(features, features, 3, padding=1),
        )
        self.blocks = module_list(Block(features, growth, layers) for _ in range(blocks))
        self.fuse, self.join = (
            nn.Conv2d(blocks * features, features, 1),
            nn.Conv2d(features, features, 3, padding=1),
        )
        self.tail = Tail(scale, features)
        he(self, {0.1: [block.fuse for block in self.blocks], 0.02: [self.tail.exit]})

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge x (N, 3, h, w); the form that is trained."""
        first = self.first(x)
        body, bodies = self.second(first), []
        for block in self.blocks:
            body = block(body)
            bodies.append(body)
        return self.tail(first + self.join(self.fuse(torch.cat(bodies, dim=1))))

    def stream(self) -> Stream:
        """The same network, fed by rows."""
        body = Together([block.stream() for block in self.blocks])
        inner = Skip(
            Chain(Convolve.of(self.second), body, Convolve.of(self.fuse), Convolve.of(self.join))
        )
        return Chain(Convolve.of(self.first), inner, self.tail.stream())
