"""A small PCSR with random weights, and smooth pictures."""

from fractions import Fraction
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tierscale.models.adaptive.pcsr.network import Pcsr
from tierscale.models.adaptive.pcsr.upscaler import PcsrUpscaler
from tierscale.models.contract.checkpoints import (
    ModelSpec,
)
from tierscale.models.contract.upscaler import Placement
from tierscale.models.runtime.nearest import axes

MEAN = (0.45, 0.44, 0.4)


ENCODERS: dict[str, dict[str, Any]] = {
    "carn": {"features": 8, "groups": 2},
    "fsrcnn": {"features": 8, "narrow": 4, "mapping": 2},
    "srresnet": {"features": 6, "blocks": 2},
}


def make(
    encoder: str = "fsrcnn",
    samplers: tuple[tuple[int, ...], ...] = ((5,), (9, 9)),
    classifier: tuple[int, ...] = (6,),
) -> PcsrUpscaler:
    """A small network whose random weights are large enough that every pixel it reads can be seen,
    and every sampler has its share.
    """
    torch.manual_seed(3)
    arguments = {
        "encoder": encoder,
        "encoder_arguments": ENCODERS[encoder],
        "samplers": samplers,
        "classifier": classifier,
    }
    network = Pcsr(**arguments)  # type: ignore[arg-type]
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
    x = torch.rand(1, 3, 24, 24)
    with torch.no_grad():
        last = network.classifier.layers[-1]
        assert last.bias is not None
        rows, columns = axes(Placement.whole((24, 24), Fraction(4)), 0, 24, 24)
        last.bias -= network.classifier(network.encoder(x - 0.5), rows, columns).mean(dim=(0, 2, 3))
    return PcsrUpscaler(network, ModelSpec("pcsr", 4, arguments, MEAN))


def whole(x: Tensor, scale: Fraction | int = 4) -> Placement:
    return Placement(Fraction(scale), (x.shape[-2], x.shape[-1]), ((0, 0),) * len(x))


def smooth(*shape: int) -> Tensor:
    """Something like a photo: some of it flat, some of it fine."""
    torch.manual_seed(5)
    coarse = F.interpolate(torch.rand(shape[0], 3, 4, 4), size=shape[1:], mode="bicubic")
    return (coarse + 0.2 * torch.rand(shape[0], 3, *shape[1:]) * (coarse > 0.5)).clamp(0, 1)
