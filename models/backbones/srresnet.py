"""SRResNet without batch norm, around a bilinear enlargement, as PCSR changes and trains it.

Ledig et al. 2017, "Photo-Realistic Single Image Super-Resolution Using a Generative Adversarial
Network", section 2.1.1; PCSR: arXiv 2407.21448.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tierscale.models.backbones.initial import he
from tierscale.models.contract.modules import module_list
from tierscale.models.runtime.stream import (
    Chain,
    Convolve,
    Finely,
    RowNetwork,
    Skip,
    Stream,
    check_scale,
    shuffle,
)

# Input pixels that the enlarging part takes at a time: at scale 4 its maps are sixteen times as
# large as the body's.
TAIL = 1024
LEAK = 0.1

soften = partial(F.leaky_relu_, negative_slope=LEAK)


class Block(nn.Module):
    """Residual block without batch norm; reaches 2 pixels.

    Two 3x3 convolutions with a ReLU between, added to the input.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(features, features, 3, padding=1)
        self.second = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.relu(self.first(x)))

    def stream(self) -> Stream:
        """The same block, fed by rows."""
        return Skip(Chain(Convolve.of(self.first), torch.relu_, Convolve.of(self.second)))


class Srresnet(RowNetwork):
    """(N, 3, h, w) -> (N, 3, scale * h, scale * w), values around the mean.

    The bilinear enlargement is added outside.
    features: channels; blocks: residual blocks. features_only: what comes before the enlarging
    part, (N, features, h, w), at scale 1.
    """

    reach: int

    def __init__(
        self, scale: int = 4, features: int = 64, blocks: int = 16, features_only: bool = False
    ) -> None:
        super().__init__()
        check_scale("SRResNet", scale)
        self.scale = 1 if features_only else scale
        # Entry 1, two for each block; then the first growing convolution 1, and the finer ones
        # together less than two pixels.
        self.reach = 2 * blocks + (1 if features_only else 3)
        self.features = features
        self.entry = nn.Conv2d(3, features, 3, padding=1)
        self.blocks = module_list(Block(features) for _ in range(blocks))
        self.steps = () if features_only else (2, 2) if scale == 4 else (scale,)
        self.grow = module_list(
            nn.Conv2d(features, features * step * step, 3, padding=1) for step in self.steps
        )
        if not features_only:
            self.smooth = nn.Conv2d(features, features, 3, padding=1)
            self.exit = nn.Conv2d(features, 3, 3, padding=1)
        # As the authors do.
        he(self, {0.1: [module for module in self.modules() if isinstance(module, nn.Conv2d)]})

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge x (N, 3, h, w), or its features; the form that is trained."""
        x = F.leaky_relu(self.entry(x), LEAK)
        for block in self.blocks:
            x = block(x)
        if not self.steps:
            return x
        for grow, step in zip(self.grow, self.steps, strict=True):
            x = F.leaky_relu(F.pixel_shuffle(grow(x), step), LEAK)
        return self.exit(F.leaky_relu(self.smooth(x), LEAK))

    def stream(self) -> Stream:
        """The same network, fed by rows."""
        body = Chain(Convolve.of(self.entry), soften, *(block.stream() for block in self.blocks))
        if not self.steps:
            return body
        tail: list[Stream | Callable[[Tensor], Tensor]] = []
        for grow, step in zip(self.grow, self.steps, strict=True):
            tail += [Convolve.of(grow), soften, shuffle(step)]
        return Chain(
            body,
            Finely(Chain(*tail, Convolve.of(self.smooth), soften, Convolve.of(self.exit)), TAIL),
        )
