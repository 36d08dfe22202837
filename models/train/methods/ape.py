"""Training of APE (arXiv 2203.11589, section 3.3): all exits at once, and the regressor that says
when to leave.

The paper cuts patches and decides for each as a whole; where the network has cells, those of a crop
are decided for. The paper's regressor learns 1 - tanh(gain in dB over the exit before), so that a
window leaves where the last step brought little. What matters is what the steps to come would
bring: here it learns 1 - tanh(gain of the last exit over this one). "paper" is the paper's.
"""

from fractions import Fraction
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tierscale.models.adaptive.ape.network import Ape
from tierscale.models.adaptive.cell_grid import cell_means
from tierscale.models.contract.checkpoints import ModelSpec
from tierscale.models.contract.upscaler import Placement
from tierscale.models.runtime.resample import resample
from tierscale.models.train.trainer import Task

# Share of the exits before the last in the error, and weight of the regressor's squared error.
EARLY, CAPACITY = 1.0, 0.01


def enlarged(network: nn.Module, lr: Tensor, spec: ModelSpec) -> tuple[Tensor, Tensor]:
    """Images at all exits (exits, N, 3, H, W) and what the regressor says there, (exits, N) or
    (exits, N, rows, columns) of cells.
    """
    assert isinstance(network, Ape)
    place = Placement.whole((lr.shape[-2], lr.shape[-1]), Fraction(spec.scale))
    exits = network(lr - lr.new_tensor(spec.mean).view(3, 1, 1))
    return (
        torch.stack(exits.images).float() + resample(lr, place, "bilinear"),
        exits.capacity.float(),
    )


def last(network: nn.Module, lr: Tensor, spec: ModelSpec) -> Tensor:
    """The image of the last exit."""
    return enlarged(network, lr, spec)[0][-1]


def decibels(images: Tensor, hr: Tensor, cell: int | None) -> Tensor:
    """PSNR of images (exits, N, 3, H, W) in dB: (exits, N), or (exits, N, rows, columns) of cells
    of so many output pixels a side.
    """
    errors = (images - hr).square().mean(dim=2)
    means = errors.mean(dim=(2, 3)) if cell is None else cell_means(errors, cell)
    return -10 * means.clamp_min(1e-10).log10()


def loss(network: nn.Module, lr: Tensor, hr: Tensor, spec: ModelSpec, paper: bool) -> Tensor:
    """L1 of the last exit and, at the same weight, the mean of the others'; the regressor's squared
    distance from its target.
    """
    images, capacity = enlarged(network, lr, spec)
    errors = (images - hr).abs().mean(dim=(1, 2, 3, 4))
    with torch.no_grad():
        assert isinstance(network, Ape)
        reached = decibels(
            images, hr, None if network.cell is None else network.cell * network.scale
        )
        gain = torch.cat([reached[:1], reached.diff(dim=0)]) if paper else reached[-1:] - reached
    return (
        errors[-1]
        + EARLY * errors[:-1].mean()
        + CAPACITY * F.mse_loss(capacity, 1 - torch.tanh(gain.clamp_min(0)))
    )


STAGES = {
    "whole": Task(partial(loss, paper=False), last),
    "paper": Task(partial(loss, paper=True), last),
}
