"""The network of APE: a plain one with exits, and a regressor that says how little is left to gain.

Wang, Zheng, Chen, Wu, Yao and Li 2022, "Adaptive Patch Exiting for Scalable Single Image
Super-Resolution", arXiv 2203.11589.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tierscale.models.adaptive.cell_grid import cell_means
from tierscale.models.backbones.edsr import Edsr
from tierscale.models.backbones.rcan import Rcan
from tierscale.models.backbones.vdsr import Vdsr
from tierscale.models.runtime.stages import Staged

BACKBONES: dict[str, type[Staged]] = {"edsr": Edsr, "rcan": Rcan, "vdsr": Vdsr}


@dataclass(frozen=True, slots=True)
class Exits:
    """What windows (N of them) would leave with at each of E exits.

    images: (N, 3, H, W) at each exit. capacity: what the regressor says there, (E, N) or, of cells,
    (E, N, rows, columns), -1..1; high: little is left to gain. full: the image behind all layers;
    the last exit's own where no layer follows it.
    """

    images: list[Tensor]
    capacity: Tensor
    full: Tensor


class Ape(nn.Module):
    """A network with an exit behind every `every` layers, and one regressor (section 3.2).

    backbone: "edsr" (exits behind blocks), "rcan" (groups) or "vdsr" (middle layers). arguments: of
    its constructor, but for the scale. cell: input pixels a side of the cells that leave, of EDSR
    only; None: patches leave, as in the paper. The paper trains the regressor towards 1 - tanh(gain
    in PSNR over the exit before): section 3.3.
    """

    def __init__(
        self,
        scale: int = 4,
        backbone: str = "edsr",
        every: int = 2,
        cell: int | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__()
        if backbone not in BACKBONES:
            raise ValueError(f"APE is made on {', '.join(BACKBONES)}, not on {backbone!r}")
        if cell is not None and (backbone != "edsr" or cell < 1):
            raise ValueError(
                f"cells of {cell} pixels cannot leave {backbone}; give 1 or more with edsr, or None"
            )
        self.network = BACKBONES[backbone](scale=scale, **arguments)
        self.scale, self.every, self.cell, self.layers = scale, every, cell, self.network.layers
        if not 1 <= every <= len(self.layers):
            raise ValueError(
                f"an exit every {every} of {len(self.layers)} layers is none; give 1 to"
                f" {len(self.layers)}"
            )
        self.exits = len(self.layers) // every
        self.regressor = nn.Linear(self.network.features, 1)

    def tell(self, means: Tensor) -> Tensor:
        """The regressor on means (…, features) over windows or cells: (…), -1..1."""
        return torch.tanh(self.regressor(means))[..., 0]

    def _tell_all(self, body: Tensor) -> Tensor:
        """The regressor on features (N, C, h, w): (N,), or (N, rows, columns) of cells.

        Cells are counted from the first pixel.
        """
        if self.cell is None:
            return self.tell(body.mean(dim=(2, 3)))
        return self.tell(cell_means(body, self.cell).movedim(1, -1))

    def interval(self, index: int) -> Sequence[nn.Module]:
        """The layers before exit `index` and behind the one before.

        index: 0 to `exits`, which means those behind the last exit.
        """
        return self.layers[index * self.every : (index + 1) * self.every]

    def forward(self, x: Tensor) -> Exits:
        """All exits of x (N, 3, h, w), values around the mean; nothing leaves early.

        The form that is trained.
        """
        entered, body = self.network.enter(x)
        images, capacity = [], []
        for index in range(self.exits + 1):
            for layer in self.interval(index):
                body = layer(body)
            if index < self.exits:
                capacity.append(self._tell_all(body))
                images.append(self.network.finish(entered, body))
        full = self.network.finish(entered, body) if self.interval(self.exits) else images[-1]
        return Exits(images, torch.stack(capacity), full)
