"""Multiply-adds, counted from the shapes that are really executed."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def executed(run: Callable[[], object]) -> int:
    """Multiply-adds of the convolutions and matrix products that run() executes; biases and
    activations are not counted.
    """
    counter = FlopCounterMode(display=False)
    with counter, torch.inference_mode(False), torch.no_grad():
        run()
    return counter.get_total_flops() // 2


def blank(*shape: int) -> Tensor:
    """A tensor with a shape and no values, for counting."""
    return torch.empty(*shape, device="meta")


def published_operations(network: nn.Module, x: Tensor) -> int:
    """Operations of network(x) as PCSR, ClassSR and ARM count them: 2 for each multiply-add, 2 for
    each element of a batch norm, 1 for each of a PReLU. x: a blank one. Transposed convolutions,
    which theirs charges once for each output pixel, count as executed.
    """
    shape, elements = copy.deepcopy(network).to("meta").eval(), [0]

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        elements[0] += output.numel() * (2 if isinstance(module, nn.BatchNorm2d) else 1)

    for module in shape.modules():
        if isinstance(module, nn.BatchNorm2d | nn.PReLU):
            module.register_forward_hook(count)
    return 2 * executed(lambda: shape(x)) + elements[0]
