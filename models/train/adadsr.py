"""Training of AdaDSR (arXiv 2004.03915, section 3.3): reconstruction under random depth budgets, and a loss on depth beyond the budget.

The paper trains one budget at a time for each crop alone. Here a batch shares a budget, so that easy crops leave theirs to hard ones,
and the full network is trained beside, so that full effort does not lose to the backbone.
"""

from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.adadsr import Adadsr
from models.resample import resample
from models.train.plain import Task
from models.upscaler import Placement
from models.weights import Blueprint

# Weight of the depth loss, in blocks as a share of all.
DEPTH = 0.05


def enlarged(network: nn.Module, lr: Tensor, blueprint: Blueprint, budget: float | None) -> tuple[Tensor, Tensor | None]:
    """The image (N, 3, H, W) and its depths (N, maps, h, w); budget in blocks, None: the full network, without depths."""
    assert isinstance(network, Adadsr)
    place = Placement.whole((lr.shape[-2], lr.shape[-1]), Fraction(blueprint.scale))
    centred, residual = lr - lr.new_tensor(blueprint.mean).view(3, 1, 1), resample(lr, place, "bilinear")
    if budget is None:
        return network.network(centred).float() + residual, None
    image, depths = network(centred, torch.full((len(lr),), budget, device=lr.device))
    return image.float() + residual, depths.float()


def loss(network: nn.Module, lr: Tensor, hr: Tensor, blueprint: Blueprint) -> Tensor:
    """L1 at a random budget and in full, and how far the mean depth goes beyond the budget."""
    assert isinstance(network, Adadsr)
    # The budget follows from the crops themselves, so that a resumed run draws it again.
    share = float((lr.double().sum() * 1000) % 1)
    budget = network.depth * (0.1 + 0.9 * share**2)
    image, depths = enlarged(network, lr, blueprint, budget)
    full, _ = enlarged(network, lr, blueprint, None)
    assert depths is not None
    used = depths.clamp(max=network.depth).mean()
    return F.l1_loss(image, hr) + F.l1_loss(full, hr) + DEPTH * F.relu(used - budget) / network.depth


def half(network: nn.Module, lr: Tensor, blueprint: Blueprint) -> Tensor:
    """The image at half the depth, which is what is watched."""
    assert isinstance(network, Adadsr)
    with torch.no_grad():
        return enlarged(network, lr, blueprint, network.depth / 2)[0]


STAGES = {"whole": Task(loss, half)}
