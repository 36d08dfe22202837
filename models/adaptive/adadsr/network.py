"""The network of AdaDSR (Liu et al. 2020, arXiv 2004.03915) in a form that can be trained."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from tierscale.models.adaptive.adadsr.predictor import Predictor
from tierscale.models.adaptive.cell_grid import cell_means
from tierscale.models.adaptive.gated import Block
from tierscale.models.backbones.edsr import Edsr
from tierscale.models.backbones.rcan import Rcan

BACKBONES: dict[str, type[Edsr] | type[Rcan]] = {"edsr": Edsr, "rcan": Rcan}


class Adadsr(nn.Module):
    """A network whose blocks count only where the predicted depth goes beyond them (section 3.1).

    backbone: "edsr" (one depth map) or "rcan" (one for each group). arguments: of its constructor,
    but for the scale. predictor_layers, predictor_width, budget_place: of the predictor; a
    budget_place of None is behind the last layer. cell: input pixels a side of cells of a grid over
    the whole image that share their mean depth, of EDSR only; None: each place has its own, as in
    the paper.
    """

    def __init__(
        self,
        scale: int = 4,
        backbone: str = "edsr",
        predictor_layers: int = 5,
        predictor_width: int = 16,
        budget_place: int | None = None,
        cell: int | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__()
        if backbone not in BACKBONES:
            raise ValueError(f"AdaDSR is made on {', '.join(BACKBONES)}, not on {backbone!r}")
        if cell is not None and (backbone != "edsr" or cell < 1):
            raise ValueError(
                f"cells of {cell} pixels cannot share a depth in {backbone}; give 1 or more with"
                " edsr, or None"
            )
        self.network: Edsr | Rcan = BACKBONES[backbone](scale=scale, **arguments)
        self.scale, self.cell = scale, cell
        self.groups: list[list[Block]]
        if isinstance(self.network, Rcan):
            self.groups = [list(group.blocks) for group in self.network.groups]
        else:
            self.groups = [list(self.network.blocks)]
        self.depth = len(self.groups[0])
        place = predictor_layers if budget_place is None else budget_place
        features = self.groups[0][0].first.in_channels
        self.predictor = Predictor(
            features, len(self.groups), predictor_layers, predictor_width, place
        )

    def forward(self, x: Tensor, budget: Tensor) -> tuple[Tensor, Tensor]:
        """Enlarge x (N, 3, h, w), values around the mean, with budgets (N,) in blocks.

        The image, and depths (N, maps, h, w), at least 0. Every block is computed everywhere, which
        gives what skipping gives: the form that is trained.
        """
        entered, body = self.network.enter(x)
        depths = self.predictor(entered, budget.view(-1, 1, 1, 1))
        if self.cell is not None:
            depths = F.interpolate(cell_means(depths, self.cell), scale_factor=self.cell)[
                :, :, : x.shape[2], : x.shape[3]
            ]
        return self.network.finish(entered, self.body(body, depths)), depths

    def body(self, x: Tensor, depths: Tensor) -> Tensor:
        """Features behind all blocks (equation 4).

        Block i counts min(max(depth - i, 0), 1) times at each place.
        """
        for index, blocks in enumerate(self.groups):
            inner, depth = x, depths[:, index : index + 1]
            for number, block in enumerate(blocks):
                inner = block.gated(inner, (depth - number).clamp(0, 1))
            x = (
                x + list(self.network.groups)[index].join(inner)
                if isinstance(self.network, Rcan)
                else inner
            )
        return x
