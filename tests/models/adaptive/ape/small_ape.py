"""A small APE with random weights, and windows that leave at different exits."""

from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from tierscale.models.adaptive.ape.network import Ape
from tierscale.models.adaptive.ape.upscaler import ApeUpscaler
from tierscale.models.contract.checkpoints import (
    ModelSpec,
)
from tierscale.models.contract.upscaler import Placement

MEAN = (0.45, 0.44, 0.4)


# The third EDSR has a layer behind its last exit.
BACKBONES: dict[str, dict[str, Any]] = {
    "edsr": {"backbone": "edsr", "every": 2, "blocks": 6, "features": 8, "res_scale": 0.5},
    "edsr, odd": {"backbone": "edsr", "every": 2, "blocks": 5, "features": 8},
    "rcan": {
        "backbone": "rcan",
        "every": 1,
        "groups": 3,
        "blocks": 2,
        "features": 8,
        "reduction": 4,
    },
    "vdsr": {"backbone": "vdsr", "every": 2, "layers": 8, "features": 8},
}


def make(kind: str, scale: int = 2, residual: str | None = None) -> ApeUpscaler:
    """A small network whose regressor says something else at each exit and for each window."""
    torch.manual_seed(2)
    arguments = BACKBONES[kind]
    method = Ape(scale, **arguments)
    for module in method.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    with torch.no_grad():
        exits = method(windows(6, 16, 16) - 0.4)
        method.regressor.bias -= torch.atanh(exits.capacity.clamp(-0.999, 0.999)).median()
    return ApeUpscaler(method, ModelSpec("ape", scale, arguments, MEAN, residual))


def windows(count: int, height: int, width: int) -> Tensor:
    """Windows (count, 3, height, width), each of another contrast and brightness."""
    torch.manual_seed(5)
    steps = torch.linspace(0.2, 1, count).view(-1, 1, 1, 1)
    return torch.rand(count, 3, height, width) * steps + 0.5 * torch.rand(count, 3, 1, 1)


def whole(x: Tensor, scale: int = 2) -> Placement:
    return Placement(Fraction(scale), (x.shape[-2], x.shape[-1]), ((0, 0),) * len(x))


def middling(upscaler: ApeUpscaler, x: Tensor) -> float:
    """A threshold between what the regressor says, far from all of it."""
    capacity = upscaler.method(x - upscaler.plain.mean).capacity.flatten().sort().values
    gap = (
        int(capacity[len(capacity) // 4 : 3 * len(capacity) // 4].diff().argmax())
        + len(capacity) // 4
    )
    return float((capacity[gap] + capacity[gap + 1]) / 2)
