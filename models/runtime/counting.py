"""Multiply-adds, counted from the shapes that are really executed."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode


def executed(run: Callable[[], object]) -> int:
    """Multiply-adds of the convolutions and matrix products that run() executes.

    Biases and activations are not counted.
    """
    counter = FlopCounterMode(display=False)
    with counter, torch.inference_mode(False), torch.no_grad():
        run()
    return counter.get_total_flops() // 2


def blank(*shape: int) -> Tensor:
    """A tensor with a shape and no values, for counting."""
    return torch.empty(*shape, device="meta")
