"""FSRCNN, the light network.

Dong, Loy and Tang 2016, "Accelerating the Super-Resolution Convolutional Neural Network", section
3. Five parts: features (5x5), shrink (1x1), map (m times 3x3), expand (1x1), and a 9x9 transposed
convolution that enlarges.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from tierscale.models.runtime.stream import (
    Chain,
    Convolve,
    RowNetwork,
    Stream,
    check_scale,
    shuffle,
)


def _padding(scale: int) -> tuple[int, int]:
    """Padding and output padding of a 9x9 transposed convolution of stride `scale`.

    With them it makes exactly scale * n pixels of n.
    """
    extra = (scale + 1) % 2  # 2 * padding = 9 + extra - scale must be even
    return (9 + extra - scale) // 2, extra


def _reach(scale: int, mapping: int) -> int:
    """Input pixels on each side.

    2 for the 5x5, 1 for each 3x3, and what the transposed convolution's nine taps span.
    """
    padding, _ = _padding(scale)
    above = (8 - padding) // scale  # output row 0 reads input rows from ceil((padding - 8) / scale)
    below = (scale - 1 + padding) // scale  # output row scale - 1 reads up to this row
    return 2 + mapping + max(above, below)


def as_convolution(layer: nn.ConvTranspose2d) -> tuple[Tensor, Tensor]:
    """Weight (D * s * s, C, k, k) and bias of the plain convolution that equals `layer`.

    A pixel shuffle by its stride s follows it.
    Output row s * i + r reads input row i + d through tap r + padding - s * d of nine. At scale 4
    this is 24 instead of 14 thousand multiply-adds for each pixel, many of them with a zero, in a
    third of the time (measured, one CPU thread).
    """
    scale, padding, size = layer.stride[0], int(layer.padding[0]), layer.kernel_size[0]
    margin = max((size - 1 - padding) // scale, (scale - 1 + padding) // scale)
    before = scale * margin - padding
    count = 2 * margin + 1
    taps = F.pad(layer.weight, (before, scale * count - size - before) * 2)
    taps = (
        taps.unflatten(3, (count, scale)).unflatten(2, (count, scale)).flip(2, 4)
    )  # (C, D, k, s, k, s), shifts d rising
    spread = taps.permute(1, 3, 5, 0, 2, 4).flatten(0, 2)  # (D * s * s, C, k, k)
    return spread, layer.get_parameter("bias").repeat_interleave(scale * scale)


class Fsrcnn(RowNetwork):
    """(N, 3, h, w) -> (N, 3, scale * h, scale * w), values around the mean.

    FSRCNN(d, s, m) in the paper's notation.
    features: d, channels of the outer parts; narrow: s, channels of the mapping; mapping: m, its
    3x3 convolutions. One slope per PReLU and one PReLU behind the whole mapping, as in the code
    that PCSR and ClassSR compare with. features_only: what comes before the enlarging part, (N,
    features, h, w), at scale 1.
    """

    reach: int

    def __init__(
        self,
        scale: int = 4,
        features: int = 56,
        narrow: int = 12,
        mapping: int = 4,
        features_only: bool = False,
    ) -> None:
        super().__init__()
        check_scale("FSRCNN", scale)
        self.scale = 1 if features_only else scale
        self.reach = 2 + mapping if features_only else _reach(scale, mapping)
        self.features, self.features_only = features, features_only
        padding, extra = _padding(scale)
        self.extract = nn.Sequential(nn.Conv2d(3, features, 5, padding=2), nn.PReLU())
        self.shrink = nn.Sequential(nn.Conv2d(features, narrow, 1), nn.PReLU())
        self.map = nn.Sequential(
            *(nn.Conv2d(narrow, narrow, 3, padding=1) for _ in range(mapping)), nn.PReLU()
        )
        self.expand = nn.Sequential(nn.Conv2d(narrow, features, 1), nn.PReLU())
        if not features_only:
            self.enlarge = nn.ConvTranspose2d(
                features, 3, 9, stride=scale, padding=padding, output_padding=extra
            )
        self._initialise()

    def _initialise(self) -> None:
        """He's normal weights (the paper's section 3.2), and a small transposed convolution.

        Training then starts near the residual.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=0.25)
                nn.init.zeros_(module.get_parameter("bias"))
        if not self.features_only:
            nn.init.normal_(self.enlarge.weight, std=0.001)
            nn.init.zeros_(self.enlarge.get_parameter("bias"))

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge x (N, 3, h, w), or its features."""
        x = self.expand(self.map(self.shrink(self.extract(x))))
        return x if self.features_only else self.enlarge(x)

    def stream(self) -> Stream:
        """The same network, fed by rows."""
        parts: list[Stream | nn.Module] = [
            Convolve.of(layer) if isinstance(layer, nn.Conv2d) else layer
            for stage in (self.extract, self.shrink, self.map, self.expand)
            for layer in stage
        ]
        return (
            Chain(*parts)
            if self.features_only
            else Chain(*parts, Convolve(*as_convolution(self.enlarge)), shuffle(self.scale))
        )
