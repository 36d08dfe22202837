"""What a stage of training minimises, watches and moves; the losses of plain networks."""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeVar

import torch.nn.functional as F
from torch import Tensor, nn

from tierscale.models.contract.checkpoints import ModelSpec
from tierscale.models.contract.upscaler import Placement
from tierscale.models.runtime.resample import resample

# Scale of the crops for networks of any scale.
LARGEST = 4

Network = TypeVar("Network", bound=nn.Module)


def centred(lr: Tensor, spec: ModelSpec) -> Tensor:
    """Crops (N, 3, h, w), 0..1, around the mean."""
    return lr - lr.new_tensor(spec.mean).view(3, 1, 1)


def enlarged_by(kernel: str, lr: Tensor, spec: ModelSpec) -> Tensor:
    """Crops (N, 3, h, w) enlarged by a kernel of runtime.resample: (N, 3, H, W)."""
    place = Placement.whole((lr.shape[-2], lr.shape[-1]), Fraction(spec.scale))
    return resample(lr, place, kernel)


def predict(network: nn.Module, lr: Tensor, spec: ModelSpec) -> Tensor:
    """Enlarge lr (N, 3, h, w), 0..1, with mean subtraction and residual.

    In a form that gradients pass through.
    """
    if spec.residual is None:
        mean = lr.new_tensor(spec.mean).view(3, 1, 1)
        return network(lr - mean).float() + mean
    return network(centred(lr, spec)).float() + enlarged_by(spec.residual, lr, spec)


def l1(network: nn.Module, lr: Tensor, hr: Tensor, spec: ModelSpec) -> Tensor:
    """Mean absolute error of the enlarged crops."""
    return F.l1_loss(predict(network, lr, spec), hr)


def charbonnier(network: nn.Module, lr: Tensor, hr: Tensor, spec: ModelSpec) -> Tensor:
    """L1 rounded off near zero, with 1/255 for epsilon.

    Lai, Huang, Ahuja and Yang 2017, LapSRN, equation 3.
    """
    return ((predict(network, lr, spec) - hr).square() + 1 / 255**2).sqrt().mean()


LOSSES = {"l1": l1, "charbonnier": charbonnier}


@dataclass(frozen=True, slots=True)
class Task:
    """What a stage of training minimises, watches and moves.

    loss: of crops (N, 3, h, w) and (N, 3, H, W), 0..1. image: what is watched, lr to hr. trained:
    first names of the parameters that move; all of them when empty.
    """

    loss: Callable[[nn.Module, Tensor, Tensor, ModelSpec], Tensor] = l1
    image: Callable[[nn.Module, Tensor, ModelSpec], Tensor] = predict
    trained: tuple[str, ...] = ()


def expect(network: nn.Module, kind: type[Network]) -> Network:
    """The network as the kind that a task is for; TypeError when it is another."""
    if not isinstance(network, kind):
        raise TypeError(f"this task trains {kind.__name__}, not {type(network).__name__}")
    return network
