"""Training of AdaDSR: reconstruction under random depth budgets, and a loss on depth beyond them.

arXiv 2004.03915, section 3.3. The paper trains one budget for each crop alone
(benchmarks/reproduce). Here a batch shares a budget, so that easy crops leave theirs to hard ones,
small budgets are drawn more often, and the full network is trained beside, so that full effort does
not lose to the backbone.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tierscale.models.adaptive.adadsr.network import Adadsr
from tierscale.models.contract.checkpoints import ModelSpec
from tierscale.models.train.tasks import Task, centred, enlarged_by, expect

# Weight of the depth loss, in blocks as a share of all.
DEPTH = 0.05


def enlarge(network: Adadsr, lr: Tensor, spec: ModelSpec, budget: Tensor) -> tuple[Tensor, Tensor]:
    """The image (N, 3, H, W) and its depths (N, maps, h, w); budget (N,) in blocks."""
    image, depths = network(centred(lr, spec), budget)
    return image.float() + enlarged_by("bilinear", lr, spec), depths.float()


def enlarge_in_full(network: Adadsr, lr: Tensor, spec: ModelSpec) -> Tensor:
    """The image (N, 3, H, W) of the full network."""
    return network.network(centred(lr, spec)).float() + enlarged_by("bilinear", lr, spec)


def drawn(values: Tensor) -> Tensor:
    """Numbers 0..1 that follow from values (N, …): (N,), float32.

    So a resumed run draws them again.
    """
    return (values.double().flatten(1).sum(dim=1) * 1000 % 1).float()


def loss(network: nn.Module, lr: Tensor, hr: Tensor, spec: ModelSpec) -> Tensor:
    """L1 at a random budget and in full, and how far the mean depth goes beyond the budget."""
    method = expect(network, Adadsr)
    budget = method.depth * (0.1 + 0.9 * drawn(lr[None]).square())
    image, depths = enlarge(method, lr, spec, budget.expand(len(lr)))
    full = enlarge_in_full(method, lr, spec)
    used = depths.clamp(max=method.depth).mean()
    return (
        F.l1_loss(image, hr) + F.l1_loss(full, hr) + DEPTH * F.relu(used - budget[0]) / method.depth
    )


def half(network: nn.Module, lr: Tensor, spec: ModelSpec) -> Tensor:
    """The image at half the depth, which is what is watched."""
    method = expect(network, Adadsr)
    with torch.no_grad():
        return enlarge(method, lr, spec, lr.new_full((len(lr),), method.depth / 2))[0]


STAGES = {"whole": Task(loss, half)}
