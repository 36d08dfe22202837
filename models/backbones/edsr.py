"""EDSR: residual blocks without batch norm around one long skip, then pixel shuffles.

Lim, Son, Kim, Nah and Lee 2017, "Enhanced Deep Residual Networks for Single Image
Super-Resolution", section 3.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from tierscale.models.backbones.initial import he
from tierscale.models.contract.modules import module_list
from tierscale.models.runtime.linear_tail import Enlarging, Fused, enlarge_within
from tierscale.models.runtime.stages import Rejoin, Staged
from tierscale.models.runtime.stream import (
    Chain,
    Convolve,
    Finely,
    Skip,
    Stream,
    check_scale,
    convolve,
    shuffle,
)

# Output pixels that the enlarging part makes at a time: its maps are larger than the body's.
TAIL = 16384


class Block(nn.Module):
    """Residual block (figure 2c); reaches 2 pixels.

    Two 3x3 convolutions with a ReLU between, times `res_scale`, added to the input.
    """

    def __init__(self, features: int, res_scale: float) -> None:
        super().__init__()
        self.first = nn.Conv2d(features, features, 3, padding=1)
        self.second = nn.Conv2d(features, features, 3, padding=1)
        self.res_scale = res_scale

    def residual(self, x: Tensor) -> Tensor:
        """What the block adds to x (N, C, h, w)."""
        residual = self.second(self.first(x).relu_())
        return residual if self.res_scale == 1 else residual.mul_(self.res_scale)

    def gated(self, x: Tensor, gate: Tensor) -> Tensor:
        """The block with its residual times `gate` (N, 1, h, w)."""
        return x + self.residual(x) * gate

    def forward(self, x: Tensor) -> Tensor:
        return x + self.residual(x)

    def stream(self) -> Stream:
        """The same block, fed by rows."""
        scaled = [] if self.res_scale == 1 else [lambda rows: rows.mul_(self.res_scale)]
        return Skip(Chain(Convolve.of(self.first), torch.relu_, Convolve.of(self.second), *scaled))


class Tail(Enlarging):
    """The enlarging part: (N, C, h, w) -> (N, 3, s * h, s * w).

    Pixel shuffles of 2, or one of 3, each behind a 3x3 convolution, then a convolution to RGB.
    """

    def __init__(self, scale: int, features: int) -> None:
        super().__init__()
        self.steps = {2: (2,), 3: (3,), 4: (2, 2), 8: (2, 2, 2)}[scale]
        self.grow = module_list(
            nn.Conv2d(features, features * step * step, 3, padding=1) for step in self.steps
        )
        self.exit = nn.Conv2d(features, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        if self.quick and self.training:
            return enlarge_within(self.steps_of(), x)
        for grow, step in zip(self.grow, self.steps, strict=True):
            x = nn.functional.pixel_shuffle(grow(x), step)
        return self.exit(x)

    def steps_of(self) -> list[tuple[nn.Conv2d, int]]:
        return [*zip(self.grow, self.steps, strict=True), (self.exit, 1)]

    def stream(self) -> Stream:
        """The same, fed by rows; as one convolution once it is settled."""
        if self.weights is not None and self.biases is not None:
            return Fused(self.weights, self.biases, math.prod(self.steps))
        parts: list[Stream | Callable[[Tensor], Tensor]] = []
        for grow, step in zip(self.grow, self.steps, strict=True):
            parts += [Convolve.of(grow), shuffle(step)]
        return Finely(Chain(*parts, Convolve.of(self.exit)), TAIL // math.prod(self.steps) ** 2)


class LongSkip(Staged):
    """A network whose layers lie inside one long skip: entry, layers, join, tail (EDSR, RCAN)."""

    entry: nn.Conv2d
    join: nn.Conv2d
    tail: Tail

    def enter(self, x: Tensor) -> tuple[Tensor, Tensor]:
        entered = convolve(x, self.entry.weight, self.entry.bias, (1, 1))
        return entered, entered

    def finish(self, entered: Tensor, body: Tensor) -> Tensor:
        return self.tail(entered + self.join(body))

    def finishing(self, entered: Tensor) -> Stream:
        return Rejoin(entered, Convolve.of(self.join), self.tail.stream())


class Edsr(LongSkip):
    """(N, 3, h, w) -> (N, 3, scale * h, scale * w), values around the mean.

    blocks: residual blocks; features: channels; res_scale: factor of each block's residual (section
    3.2).
    """

    def __init__(
        self, scale: int = 4, blocks: int = 16, features: int = 64, res_scale: float = 1.0
    ) -> None:
        super().__init__()
        check_scale("EDSR", scale)
        self.scale, self.features = scale, features
        # Entry 1, two for each block, the body's end 1, first growing convolution 1; finer ones add
        # less than one pixel more.
        self.reach = 2 * blocks + 4
        self.entry = nn.Conv2d(3, features, 3, padding=1)
        self.blocks = module_list(Block(features, res_scale) for _ in range(blocks))
        self.join = nn.Conv2d(features, features, 3, padding=1)
        self.tail = Tail(scale, features)
        he(self, {0.1: [block.second for block in self.blocks], 0.02: [self.tail.exit]})

    @property
    def layers(self) -> Sequence[nn.Module]:
        return list(self.blocks)

    def stream(self) -> Stream:
        """The same network, fed by rows."""
        body = Skip(Chain(*(block.stream() for block in self.blocks), Convolve.of(self.join)))
        return Chain(Convolve.of(self.entry), body, self.tail.stream())
