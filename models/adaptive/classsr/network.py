"""ClassSR's network: a classifier of small tiles, and branches from light to heavy.

Kong, Zhao, Qiao and Dong 2021, arXiv 2103.04039.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tierscale.models.backbones import carn, fsrcnn, srresnet
from tierscale.models.contract.modules import module_list
from tierscale.models.runtime.stream import RowNetwork

BRANCHES: dict[str, type[RowNetwork]] = {
    "carn": carn.Carn,
    "fsrcnn": fsrcnn.Fsrcnn,
    "srresnet": srresnet.Srresnet,
}
CLASSIFIER = 128  # channels


# The paper's branches of CARN have 36, 52 and 64 channels in 4 groups. Groups of 9 or 13 channels
# leave a third of each vector register empty: 36 channels do a third of the work of 64 in half of
# the time (measured). With 16 channels in every group the time follows.
OURS = ({"features": 32, "groups": 2}, {"features": 48, "groups": 3}, {"features": 64, "groups": 4})


class Classifier(nn.Module):
    """Logits of the classes (section 3.3) of tiles (N, 3, t, t), values 0..1: (N, classes)."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        wide = CLASSIFIER
        self.look = nn.Conv2d(3, wide, 4, stride=4)
        self.think = module_list(nn.Conv2d(wide, after, 1) for after in (wide, wide, wide, 32))
        self.tell = nn.Linear(32, classes)

    def forward(self, tiles: Tensor) -> Tensor:
        x = self.look(tiles)
        for layer in self.think:
            x = layer(F.leaky_relu(x, 0.1))
        # The upstream pooling window is as wide as the map is high; for the square tiles it is
        # made for, that is all of it.
        side = x.shape[2]
        return self.tell(x[:, :, :, :side].mean(dim=(2, 3)))

    def cost(self, height: int, width: int) -> int:
        """Multiply-adds for one tile of `height` by `width`."""
        places = (height // 4) * (width // 4)
        return (
            places * (48 * CLASSIFIER + CLASSIFIER * (3 * CLASSIFIER + 32))
            + 32 * self.tell.out_features
        )


class ClassSr(nn.Module):
    """The network (section 3.1) in a form that can be trained.

    branch: of BRANCHES; branches: arguments of each branch's constructor, two or more, from light
    to heavy.
    """

    def __init__(
        self,
        scale: int = 4,
        branch: str = "carn",
        branches: Sequence[dict[str, Any]] = OURS,
    ) -> None:
        super().__init__()
        if branch not in BRANCHES:
            raise ValueError(f"ClassSR has no branch {branch!r}; known are {', '.join(BRANCHES)}")
        if len(branches) < 2:
            raise ValueError(
                f"ClassSR chooses among two or more branches, not {len(branches)}; give their"
                " arguments from light to heavy"
            )
        self.classifier = Classifier(len(branches))
        self.branches = module_list(
            BRANCHES[branch](scale=scale, **arguments) for arguments in branches
        )

    def forward(self, tiles: Tensor, centred: Tensor) -> tuple[Tensor, Tensor]:
        """Tiles (N, 3, t, t), 0..1, and the same around the mean, to logits and (N, 3, T, T).

        Logits are (N, classes). The pixels are those of all branches, weighed by the classes'
        probabilities (equation 1): the form that is trained.
        """
        logits = self.classifier(tiles)
        shares = torch.softmax(logits, dim=1).unbind(dim=1)
        parts = [
            share[:, None, None, None] * branch(centred)
            for share, branch in zip(shares, self.branches, strict=True)
        ]
        return logits, torch.stack(parts).sum(dim=0)
