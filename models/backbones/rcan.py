"""RCAN: groups of residual blocks whose channels are weighed by what the whole window holds.

Zhang, Li, Li, Wang, Zhong and Fu 2018, "Image Super-Resolution Using Very Deep Residual Channel
Attention Networks".
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tierscale.models.backbones.edsr import LongSkip, Tail
from tierscale.models.backbones.initial import he
from tierscale.models.contract.modules import module_list
from tierscale.models.runtime.stream import Stream, check_scale


class Attention(nn.Module):
    """Weight of each channel from its mean over the window (equations 6 to 8).

    (N, C, h, w) -> (N, C, 1, 1), 0..1.
    """

    def __init__(self, features: int, reduction: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(features, features // reduction, 1)
        self.excite = nn.Conv2d(features // reduction, features, 1)

    def weigh(self, means: Tensor) -> Tensor:
        """Weights from the means (N, C, 1, 1)."""
        return torch.sigmoid(self.excite(self.squeeze(means).relu()))

    def forward(self, x: Tensor) -> Tensor:
        return self.weigh(x.mean(dim=(2, 3), keepdim=True))


class Block(nn.Module):
    """Residual channel attention block (equations 9 and 10).

    Two 3x3 convolutions with a ReLU between, weighed, added to the input.
    """

    def __init__(self, features: int, reduction: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(features, features, 3, padding=1)
        self.second = nn.Conv2d(features, features, 3, padding=1)
        self.attention = Attention(features, reduction)

    def residual(self, x: Tensor) -> Tensor:
        """What the two convolutions make of x (N, C, h, w), not yet weighed."""
        return self.second(self.first(x).relu_())

    def gated(self, x: Tensor, gate: Tensor) -> Tensor:
        """The block with its residual times `gate` (N, 1, h, w) before it is weighed."""
        residual = self.residual(x) * gate
        return x + residual * self.attention(residual)

    def forward(self, x: Tensor) -> Tensor:
        residual = self.residual(x)
        return x + residual * self.attention(residual)


class Group(nn.Module):
    """Residual group (equation 5): blocks and a 3x3 convolution, added to the input."""

    def __init__(self, blocks: int, features: int, reduction: int) -> None:
        super().__init__()
        self.blocks = module_list(Block(features, reduction) for _ in range(blocks))
        self.join = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        inner = x
        for block in self.blocks:
            inner = block(inner)
        return x + self.join(inner)


class Rcan(LongSkip):
    """(N, 3, h, w) -> (N, 3, scale * h, scale * w), values around the mean.

    It looks at the whole window (reach None).
    groups, blocks: residual groups and the blocks of each; features: channels; reduction: of the
    channels inside the attention.
    """

    reach: int | None = None

    def __init__(
        self,
        scale: int = 4,
        groups: int = 10,
        blocks: int = 20,
        features: int = 64,
        reduction: int = 16,
    ) -> None:
        super().__init__()
        check_scale("RCAN", scale)
        if not 1 <= reduction <= features:
            raise ValueError(
                f"an attention over {features} channels cannot be reduced {reduction} times; give 1"
                f" to {features}"
            )
        self.scale, self.features = scale, features
        self.entry = nn.Conv2d(3, features, 3, padding=1)
        self.groups = module_list(Group(blocks, features, reduction) for _ in range(groups))
        self.join = nn.Conv2d(features, features, 3, padding=1)
        self.tail = Tail(scale, features)
        second = [block.second for group in self.groups for block in group.blocks]
        he(self, {0.1: [*(group.join for group in self.groups), *second], 0.02: [self.tail.exit]})

    @property
    def layers(self) -> Sequence[nn.Module]:
        return list(self.groups)

    def stream(self) -> Stream:
        """The same network, fed with all rows at once."""
        return Whole(self)


class Whole:
    """RCAN fed with all rows at once: every block needs the mean of the whole window.

    Its end, whose maps are the largest, goes by rows.
    """

    def __init__(self, network: Rcan) -> None:
        self.network = network

    def push(self, rows: Tensor, last: bool) -> Tensor:
        if not last:
            raise ValueError(
                f"RCAN was fed {rows.shape[2]} rows with more to come; feed it the whole window at"
                " once, which its attention needs"
            )
        entered, body = self.network.enter(rows)
        for layer in self.network.layers:
            body = layer(body)
        return self.network.finish_by_rows(entered, body)
