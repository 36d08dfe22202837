"""LIIF with the nearest feature: a perceptron makes each output pixel.

Chen, Liu and Wang 2021, "Learning Continuous Image Representation with Local Implicit Image
Function", section 3, without feature unfolding and local ensemble, as PCSR uses it.
"""

from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor, nn

from tierscale.models.runtime.mlp import Mlp
from tierscale.models.runtime.nearest import Axis

# Output pixels made at a time on a CPU: 256 channels of them are 2 MiB.
TOGETHER = 2048


class Liif(nn.Module):
    """(N, features, h, w) -> (N, 3, H, W): what is added to the bilinear enlargement.

    features: channels; hidden: widths of the perceptron's hidden layers.
    """

    def __init__(self, features: int, hidden: Sequence[int] = (256, 256, 256, 256)) -> None:
        super().__init__()
        self.sampler = Mlp(features, hidden, 3)

    def forward(self, features: Tensor, rows: Axis, columns: Axis, stretch: float = 1.0) -> Tensor:
        """stretch: factor of the size of an output pixel that the network gets as input."""
        return self.sampler(features, rows, columns)

    def run(self, features: Tensor, rows: Axis, columns: Axis, stretch: float = 1.0) -> Tensor:
        """The same for one window (1, features, h, w), a few output rows at a time.

        Without gradients.
        """
        known = features[0].movedim(0, -1).flatten(0, 1)  # (h * w, C)
        table = self.sampler.table(known, rows, columns)
        place = rows.source()[:, None] * features.shape[3] + columns.source()
        phase = len(known) + rows.phase()[:, None] * len(columns.offsets()) + columns.phase()
        points = torch.stack([place, phase], dim=-1).to(features.device)
        step = max(1, (TOGETHER if features.device.type == "cpu" else 1 << 18) // columns.count)
        blocks = [self.sampler.at(table, part.flatten(0, 1)) for part in points.split(step)]
        return torch.cat(blocks, dim=1).unflatten(1, (rows.count, columns.count))[None]

    def cost(self, pixels: int, queries: int) -> float:
        """Multiply-adds for a window of so many input and output pixels."""
        return self.sampler.cost(pixels, queries)

    def memory(self, scale: Fraction) -> float:
        """Bytes for each input pixel.

        The first layer there, and for each output pixel its two places and the result twice.
        """
        return 4 * self.sampler.layers[0].out_features + (48 + 24) * float(scale) ** 2
