"""The predictor of AdaDSR: how many residual blocks each place of a picture needs.

Liu et al. 2020, arXiv 2004.03915, section 3.2.
"""

from itertools import pairwise

from torch import Tensor, nn

from tierscale.models.contract.modules import module_list


class Predictor(nn.Module):
    """Features (N, C, h, w) and budgets to depths (N, maps, h, w), at least 0.

    maps: depth maps; layers: 3x3 convolutions, a PReLU before each but the first; width: channels
    between; place: convolution whose input the budget multiplies; `layers`: the last one's output.
    """

    def __init__(self, features: int, maps: int, layers: int, width: int, place: int) -> None:
        super().__init__()
        if layers < 1 or not 0 <= place <= layers:
            raise ValueError(
                f"a predictor of {layers} layers has no place {place} for a budget; give 0 to"
                f" {layers}"
            )
        self.place = place
        widths = [features, *[width] * (layers - 1), maps]
        self.layers = module_list(
            nn.Conv2d(before, after, 3, padding=1) for before, after in pairwise(widths)
        )
        self.slopes = module_list(nn.PReLU() for _ in range(layers - 1))
        self.cost = sum(
            layer.weight.numel() for layer in self.layers
        )  # multiply-adds for each input pixel
        self._initialise()

    def _initialise(self) -> None:
        """He's normal weights, and a last layer that starts with about the budget everywhere."""
        for layer in self.layers:
            nn.init.kaiming_normal_(layer.weight, a=0.25)
            nn.init.zeros_(layer.get_parameter("bias"))
        last = self.layers[-1]
        nn.init.normal_(last.weight, std=0.01)
        nn.init.ones_(last.get_parameter("bias"))

    def forward(self, x: Tensor, budget: Tensor) -> Tensor:
        """budget: blocks that may be run, (N, 1, 1, 1), or one number for all."""
        for index, layer in enumerate(self.layers):
            x = x * budget if index == self.place else x
            x = layer(x if index == 0 else self.slopes[index - 1](x))
        return (x * budget if self.place == len(self.layers) else x).relu()
