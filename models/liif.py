"""LIIF with the nearest feature (Chen, Liu and Wang 2021, "Learning Continuous Image Representation with Local Implicit Image Function",
section 3, without feature unfolding and local ensemble, as PCSR uses it): a perceptron makes each output pixel.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from models.nearest import Axis
from models.mlp import Mlp


class Liif(nn.Module):
    """(N, features, h, w) -> (N, 3, H, W): what is added to the bilinear enlargement.

    features: channels; hidden: widths of the perceptron's hidden layers.
    """

    def __init__(self, features: int, hidden: Sequence[int] = (256, 256, 256, 256)) -> None:
        super().__init__()
        self.features = features
        self.sampler = Mlp(features, hidden, 3)

    def forward(self, features: Tensor, rows: Axis, columns: Axis, stretch: float = 1.0) -> Tensor:
        return self.sampler(features, rows, columns)
