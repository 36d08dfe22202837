"""A small AdaDSR with random weights, and photos."""

from fractions import Fraction
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tierscale.models.adaptive.adadsr.network import Adadsr
from tierscale.models.adaptive.adadsr.upscaler import AdadsrUpscaler
from tierscale.models.contract.checkpoints import (
    ModelSpec,
)
from tierscale.models.contract.upscaler import Placement

MEAN = (0.45, 0.44, 0.4)


BACKBONES: dict[str, dict[str, Any]] = {
    "edsr": {
        "backbone": "edsr",
        "blocks": 4,
        "features": 8,
        "res_scale": 0.5,
        "predictor_width": 4,
    },
    "edsr, cells": {
        "backbone": "edsr",
        "blocks": 4,
        "features": 8,
        "res_scale": 0.5,
        "predictor_width": 4,
        "cell": 8,
    },
    "rcan": {
        "backbone": "rcan",
        "groups": 2,
        "blocks": 3,
        "features": 8,
        "reduction": 4,
        "predictor_width": 4,
        "budget_place": 0,
    },
}


def make(kind: str, scale: int = 2, residual: str | None = None, **changed: Any) -> AdadsrUpscaler:
    """A small network that gives three tenths of a picture as photo() makes it no depth.

    And a tenth more than the budget.
    """
    torch.manual_seed(1)
    arguments = {**BACKBONES[kind], **changed}
    method = Adadsr(scale, **arguments)
    for module in method.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    with torch.no_grad():
        method.network.tail.exit.weight.mul_(0.1)  # type: ignore[operator, union-attr]
        last = method.predictor.layers[-1]
        assert last.bias is not None
        last.bias.fill_(1000)
        raw = method(photo(1, 40, 40) - 0.45, torch.ones(1))[1] - 1000
        low, high = raw.quantile(0.3), raw.quantile(0.9)
        last.weight.div_(high - low)
        last.bias.copy_(-low / (high - low))
    return AdadsrUpscaler(method, ModelSpec("adadsr", scale, arguments, MEAN, residual))


def photo(count: int, height: int, width: int) -> Tensor:
    """Something like a photo: some of it flat, some of it fine."""
    torch.manual_seed(5)
    coarse = F.interpolate(torch.rand(count, 3, 5, 5), size=(height, width), mode="bicubic")
    return (coarse + 0.3 * (torch.rand(count, 3, height, width) - 0.5) * (coarse > 0.6)).clamp(
        0.05, 0.95
    )


def whole(x: Tensor, scale: int = 2) -> Placement:
    return Placement(Fraction(scale), (x.shape[-2], x.shape[-1]), ((0, 0),) * len(x))
