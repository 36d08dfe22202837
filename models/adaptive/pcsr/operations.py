"""Operations as PCSR, ClassSR and ARM count them; PCSR's k divides by costs that are counted so."""

import copy

from torch import Tensor, nn

from tierscale.models.runtime.counting import executed


def upstream_operations(network: nn.Module, x: Tensor) -> int:
    """Operations of network(x): 2 a multiply-add, 2 a batch norm's element, 1 a PReLU's.

    x: zeros, on a CPU as the network is. Transposed convolutions, which the upstream counter
    charges once for each output pixel, count as executed.
    """
    shape, elements = copy.deepcopy(network).eval(), [0]

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        elements[0] += output.numel() * (2 if isinstance(module, nn.BatchNorm2d) else 1)

    for module in shape.modules():
        if isinstance(module, nn.BatchNorm2d | nn.PReLU):
            module.register_forward_hook(count)
    return 2 * executed(lambda: shape(x)) + elements[0]
