"""Training of AdaDSR (arXiv 2004.03915, section 3.3): reconstruction under random depth budgets,
and a loss on depth beyond the budget.

The paper trains one budget at a time for each crop alone: "paper" here. In "whole" a batch shares a
budget, so that easy crops leave theirs to hard ones, small budgets are drawn more often, and the
full network is trained beside, so that full effort does not lose to the backbone.
"""

from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tierscale.models.adaptive.adadsr.network import Adadsr
from tierscale.models.contract.checkpoints import ModelSpec
from tierscale.models.contract.upscaler import Placement
from tierscale.models.runtime.resample import resample
from tierscale.models.train.trainer import Task

# Weight of the depth loss, in blocks as a share of all.
DEPTH = 0.05


def enlarged(
    network: nn.Module, lr: Tensor, spec: ModelSpec, budget: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """The image (N, 3, H, W) and its depths (N, maps, h, w); budget (N,) in blocks, None: the full
    network, without depths.
    """
    assert isinstance(network, Adadsr)
    place = Placement.whole((lr.shape[-2], lr.shape[-1]), Fraction(spec.scale))
    centred, residual = (
        lr - lr.new_tensor(spec.mean).view(3, 1, 1),
        resample(lr, place, "bilinear"),
    )
    if budget is None:
        return network.network(centred).float() + residual, None
    image, depths = network(centred, budget)
    return image.float() + residual, depths.float()


def drawn(values: Tensor) -> Tensor:
    """Numbers 0..1 that follow from values (N, …), so that a resumed run draws them again: (N,),
    float32.
    """
    return (values.double().flatten(1).sum(dim=1) * 1000 % 1).float()


def loss(network: nn.Module, lr: Tensor, hr: Tensor, spec: ModelSpec) -> Tensor:
    """L1 at a random budget and in full, and how far the mean depth goes beyond the budget."""
    assert isinstance(network, Adadsr)
    budget = network.depth * (0.1 + 0.9 * drawn(lr[None]).square())
    image, depths = enlarged(network, lr, spec, budget.expand(len(lr)))
    full, _ = enlarged(network, lr, spec, None)
    assert depths is not None
    used = depths.clamp(max=network.depth).mean()
    return (
        F.l1_loss(image, hr)
        + F.l1_loss(full, hr)
        + DEPTH * F.relu(used - budget[0]) / network.depth
    )


def paper_loss(network: nn.Module, lr: Tensor, hr: Tensor, spec: ModelSpec) -> Tensor:
    """L1 at a random budget for each crop, and how far the mean depth of each goes beyond its
    own.
    """
    assert isinstance(network, Adadsr)
    budget = network.depth * drawn(lr)
    image, depths = enlarged(network, lr, spec, budget)
    assert depths is not None
    # guess: the weight of the depth loss is ours; the paper's is for depths that are counted in
    # blocks of another network.
    return (
        F.l1_loss(image, hr)
        + DEPTH * F.relu(depths.mean(dim=(1, 2, 3)) - budget).mean() / network.depth
    )


def half(network: nn.Module, lr: Tensor, spec: ModelSpec) -> Tensor:
    """The image at half the depth, which is what is watched."""
    assert isinstance(network, Adadsr)
    with torch.no_grad():
        return enlarged(network, lr, spec, lr.new_full((len(lr),), network.depth / 2))[0]


STAGES = {"whole": Task(loss, half), "paper": Task(paper_loss, half)}
