"""The network of AnySR (Fu, Zhong and others 2024, arXiv 2407.04241), as it is trained."""

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from torch import Tensor, nn

from tierscale.models.adaptive.anysr.liif import Liif
from tierscale.models.adaptive.anysr.slim_edsr import SlimEdsr
from tierscale.models.adaptive.anysr.slim_rdn import SlimRdn
from tierscale.models.adaptive.anysr.srno import Srno
from tierscale.models.runtime.nearest import Axis

ENCODERS: dict[str, type[SlimEdsr | SlimRdn]] = {"edsr": SlimEdsr, "rdn": SlimRdn}
HEADS: dict[str, type[Srno | Liif]] = {"srno": Srno, "liif": Liif}
# Shares of the hidden channels at scales up to 1.7, 2.5 and 3.2; all of them beyond.
WIDTHS = {"edsr": (0.5, 0.7, 0.9), "rdn": (0.7, 0.8, 0.9)}
# The largest scale that is trained; beyond it the upstream demonstration tells the head this one.
TRAINED = 4
# The least scale that is trained.
LEAST = Fraction(11, 10)


def width_by_scale(encoder: str, scale: Fraction) -> float:
    """The paper's share of hidden channels (section 3.2).

    Only scales of one decimal are known, 1.1 to 3.2; others run in full.
    """
    tenths = 10 * scale
    if tenths.denominator != 1 or not 11 <= tenths <= 32:
        return 1.0
    return WIDTHS[encoder][0 if tenths <= 17 else 1 if tenths <= 25 else 2]


class AnySr(nn.Module):
    """The network (section 3) in a form that can be trained.

    encoder: of ENCODERS; head: of HEADS; the arguments are those of their constructors, but for the
    head's features.
    """

    def __init__(
        self,
        encoder: str = "edsr",
        encoder_arguments: Mapping[str, Any] = {},
        head: str = "srno",
        head_arguments: Mapping[str, Any] = {},
    ) -> None:
        super().__init__()
        for part, name, known in (("encoder", encoder, ENCODERS), ("head", head, HEADS)):
            if name not in known:
                raise ValueError(f"AnySR has no {part} {name!r}; known are {', '.join(known)}")
        self.kind = encoder
        self.encoder = ENCODERS[encoder](**encoder_arguments)
        self.head = HEADS[head](self.encoder.features, **head_arguments)

    def forward(
        self, x: Tensor, rows: Axis, columns: Axis, scale: Fraction, width: float = 1.0
    ) -> Tensor:
        """What is added to the bilinear enlargement of x (N, 3, h, w): (N, 3, H, W).

        x: values around the mean. rows, columns: of the output (nearest.axes gives a window's).
        scale: input of the blocks; width: share of their hidden channels, above 0 to 1.
        """
        return self.head(self.encoder(x, scale, width), rows, columns)
