"""First weights of networks that are to be trained."""

from collections.abc import Iterable, Mapping

import torch
from torch import nn


def he(network: nn.Module, damped: Mapping[float, Iterable[nn.Conv2d]]) -> None:
    """He's normal weights, biases zero.

    He, Zhang, Ren and Sun 2015, arXiv 1502.01852, equation 10.
    damped: factor -> convolutions whose weights are multiplied by it: where a branch joins and at
    the exit, training then starts near the residual.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    with torch.no_grad():
        for factor, layers in damped.items():
            for layer in layers:
                layer.weight.mul_(factor)
