"""AdaDSR (Liu, Zhang, Wang, Yang, Zuo and Cao 2020, "Deep Adaptive Inference Networks for Single Image Super-Resolution",
arXiv 2004.03915): each place of the picture gets as many residual blocks as a small predictor thinks it needs.
"""

from typing import Any

from torch import Tensor, nn

from models import edsr, rcan
from models.edsr import Edsr
from models.rcan import Rcan
from models.stages import Staged

BACKBONES: dict[str, type[Staged]] = {"edsr": Edsr, "rcan": Rcan}


class Predictor(nn.Module):
    """How many blocks each place needs: features (N, C, h, w) and budgets -> depths (N, maps, h, w), at least 0 (section 3.2).

    maps: depth maps; layers: 3x3 convolutions, a PReLU before each but the first; width: channels between;
    place: convolution whose input the budget multiplies; `layers`: the last one's output.
    """

    def __init__(self, features: int, maps: int, layers: int, width: int, place: int) -> None:
        super().__init__()
        if layers < 1 or not 0 <= place <= layers:
            raise ValueError(f"a predictor of {layers} layers has no place {place} for a budget; give 0 to {layers}")
        self.place = place
        widths = [features, *[width] * (layers - 1), maps]
        self.layers: list[nn.Conv2d] = nn.ModuleList(  # type: ignore[assignment]
            nn.Conv2d(before, after, 3, padding=1) for before, after in zip(widths, widths[1:], strict=False)
        )
        self.slopes: list[nn.PReLU] = nn.ModuleList(nn.PReLU() for _ in range(layers - 1))  # type: ignore[assignment]
        self._initialise()

    def _initialise(self) -> None:
        """He's normal weights, and a last layer that starts with about the budget itself everywhere."""
        for layer in self.layers:
            nn.init.kaiming_normal_(layer.weight, a=0.25)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        last = self.layers[-1]
        nn.init.normal_(last.weight, std=0.01)
        nn.init.ones_(last.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, budget: Tensor) -> Tensor:
        """budget: blocks that may be spent, (N, 1, 1, 1)."""
        for index, layer in enumerate(self.layers):
            x = x * budget if index == self.place else x
            x = layer(x if index == 0 else self.slopes[index - 1](x))
        return (x * budget if self.place == len(self.layers) else x).relu()


class Adadsr(nn.Module):
    """A network whose blocks count only where the predicted depth goes beyond them (section 3.1).

    backbone: "edsr" (one depth map) or "rcan" (one for each group). arguments: of its constructor, but for the scale.
    predictor_layers, predictor_width, budget_place: of the predictor; a budget_place of None is behind the last layer.
    """

    def __init__(
        self,
        scale: int = 4,
        backbone: str = "edsr",
        predictor_layers: int = 5,
        predictor_width: int = 16,
        budget_place: int | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__()
        if backbone not in BACKBONES:
            raise ValueError(f"AdaDSR is made on {', '.join(BACKBONES)}, not on {backbone!r}")
        self.network = BACKBONES[backbone](scale=scale, **arguments)
        self.scale = scale
        self.groups: list[list[edsr.Block | rcan.Block]]
        if isinstance(self.network, Rcan):
            self.groups = [list(group.blocks) for group in self.network.groups]
        else:
            assert isinstance(self.network, Edsr)
            self.groups = [list(self.network.blocks)]
        self.depth = len(self.groups[0])
        place = predictor_layers if budget_place is None else budget_place
        features = self.groups[0][0].first.in_channels
        self.predictor = Predictor(features, len(self.groups), predictor_layers, predictor_width, place)

    def forward(self, x: Tensor, budget: Tensor) -> tuple[Tensor, Tensor]:
        """Enlarge x (N, 3, h, w), values around the mean, with budgets (N,) in blocks: image and depths (N, maps, h, w), at least 0.

        Every block is computed everywhere, which gives what skipping gives. The form that is trained.
        """
        entered, body = self.network.enter(x)
        depths = self.predictor(entered, budget.view(-1, 1, 1, 1))
        return self.network.finish(entered, self.body(body, depths)), depths

    def body(self, x: Tensor, depths: Tensor) -> Tensor:
        """Features behind all blocks, block i times min(max(depth - i, 0), 1) at each place (equation 4)."""
        for index, blocks in enumerate(self.groups):
            inner, depth = x, depths[:, index : index + 1]
            for number, block in enumerate(blocks):
                inner = block.gated(inner, (depth - number).clamp(0, 1))
            x = x + list(self.network.groups)[index].join(inner) if isinstance(self.network, Rcan) else inner
        return x
