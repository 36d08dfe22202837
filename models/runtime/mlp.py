"""A multi-layer perceptron on nearest features: what each output pixel is made of in LIIF.

Chen, Liu and Wang 2021, arXiv 2012.09161, without its local ensemble, as PCSR uses it for its
classifier and its samplers.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tierscale.models.contract.modules import module_list
from tierscale.models.runtime.nearest import Axis


class Mlp(nn.Module):
    """Linear layers with ReLU between, on a feature and four numbers.

    These are row and column in the input pixel, height and width of the output pixel. The feature
    is the same for all output pixels of one input pixel, and the four numbers are the same for all
    output pixels of one phase. So the first layer is what it makes of the features, at input
    resolution, plus a constant for each phase: at scale 4 a sixteenth of the work.
    """

    def __init__(self, features: int, hidden: Sequence[int], results: int) -> None:
        super().__init__()
        sizes = (features + 4, *hidden, results)
        self.width = max(sizes[1:])
        self.layers = module_list(nn.Linear(before, after) for before, after in pairwise(sizes))

    def constants(self, rows: Axis, columns: Axis) -> Tensor:
        """What the first layer adds at each phase: (row phases, column phases, width)."""
        weight = self.layers[0].weight[:, -4:]
        row, column = (axis.offsets().to(weight) for axis in (rows, columns))
        fixed = (
            self.layers[0].bias
            + weight[:, 2] * float(2 / rows.scale)
            + weight[:, 3] * float(2 / columns.scale)
        )
        return (row[:, None, None] * weight[:, 0] + fixed) + column[:, None] * weight[:, 1]

    def forward(self, features: Tensor, rows: Axis, columns: Axis) -> Tensor:
        """Features (N, C, h, w) to results (N, results, H, W), at every output pixel.

        The form that is trained.
        """
        known = F.linear(features.movedim(1, -1), self.layers[0].weight[:, :-4])  # (N, h, w, width)
        constants = self.constants(rows, columns)
        if rows.regular and columns.regular:
            x = known[:, :, None, :, None] + constants[:, None]  # (N, h, s, w, s, width)
            x = x.flatten(3, 4).flatten(1, 2)
        else:
            x = known.index_select(1, rows.source().to(known.device)).index_select(
                2, columns.source().to(known.device)
            )
            x = x + constants[rows.phase()[:, None], columns.phase()]
        for layer in self.layers[1:]:
            x = layer(F.relu(x))
        return x.movedim(-1, 1)

    def table(self, features: Tensor, rows: Axis, columns: Axis) -> Tensor:
        """First layer of features (P, C), and below it the constants; without gradients.

        (P + row phases * column phases, width).
        """
        constants = self.constants(rows, columns).flatten(0, 1)
        table = features.new_empty(len(features) + len(constants), constants.shape[1])
        torch.mm(features, self.layers[0].weight[:, :-4].t(), out=table[: len(features)])
        table[len(features) :] = constants
        return table

    def at(self, table: Tensor, points: Tensor) -> Tensor:
        """Results (results, m) at output pixels (m, 2).

        points: for each the two rows of table() that make its first layer. Channels come before
        pixels: products of narrow matrices are up to six times as fast that way round (oneMKL,
        AVX-512).
        """
        x = F.embedding_bag(points, table, mode="sum").t()
        for layer in self.layers[1:]:
            x = torch.addmm(layer.bias[:, None], layer.weight, x.relu_())
        return x

    def cost(self, count: int, hr_count: int) -> float:
        """Multiply-adds for `count` input pixels and `hr_count` output pixels."""
        first, *others = (layer.weight for layer in self.layers)
        return float(
            first[:, :-4].numel() * count + sum(weight.numel() for weight in others) * hr_count
        )
