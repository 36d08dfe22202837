"""Small plain networks with random weights."""

from fractions import Fraction

import torch
from torch import nn

from tierscale.models.backbones.carn import Carn
from tierscale.models.backbones.edsr import Edsr
from tierscale.models.backbones.fsrcnn import Fsrcnn
from tierscale.models.backbones.rdn import Rdn
from tierscale.models.backbones.srresnet import Srresnet
from tierscale.models.backbones.vdsr import Vdsr
from tierscale.models.contract.checkpoints import (
    ModelSpec,
)
from tierscale.models.contract.upscaler import Placement
from tierscale.models.runtime.plain import PlainUpscaler
from tierscale.models.runtime.stream import RowNetwork

MEAN = (0.45, 0.44, 0.4)


NETWORKS: dict[str, tuple[type[RowNetwork], dict[str, int]]] = {
    "fsrcnn": (Fsrcnn, {"features": 8, "narrow": 4, "mapping": 2}),
    "carn": (Carn, {"features": 8, "groups": 2}),
    "edsr": (Edsr, {"blocks": 2, "features": 8, "res_scale": 0.5}),
    "vdsr": (Vdsr, {"layers": 5, "features": 8}),
    "srresnet": (Srresnet, {"blocks": 2, "features": 8}),
    "rdn": (Rdn, {"blocks": 2, "features": 8, "growth": 4, "layers": 3}),
}


def make(kind: str, scale: int, residual: str | None = "bilinear") -> PlainUpscaler:
    """A small network whose random weights are large enough that every pixel it reads can be seen
    in the result.
    """
    torch.manual_seed(1)
    cls, arguments = NETWORKS[kind]
    network = cls(scale=scale, **arguments)  # type: ignore[arg-type]
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    if isinstance(network, Fsrcnn):
        nn.init.normal_(network.enlarge.weight, std=0.1)
    if isinstance(
        network, Rdn
    ):  # its dense blocks add up to results of 30, whose rounding is more than the tests allow
        nn.init.normal_(network.tail.exit.weight, std=0.01)
    return PlainUpscaler(network, ModelSpec(kind, scale, dict(arguments), MEAN, residual))


def whole(x: torch.Tensor, scale: int) -> Placement:
    return Placement(Fraction(scale), (x.shape[-2], x.shape[-1]), ((0, 0),) * len(x))
