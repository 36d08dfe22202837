"""Training of ClassSR (arXiv 2103.04039, section 3.4): the lighter branches, then the classifier.

The paper trains classifier and branches together on the error of the probability-weighted image,
with a loss that drives probabilities apart and one for an even use. A tile is never a mixture when
it is used: here each branch learns from all tiles, and the classifier from the error that its
choice would leave.
"""

from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tierscale.models.adaptive.classsr.network import ClassSr
from tierscale.models.contract.checkpoints import ModelSpec
from tierscale.models.contract.upscaler import Placement
from tierscale.models.runtime.resample import resample
from tierscale.models.train.methods.choice import expected_error, uneven
from tierscale.models.train.trainer import Task

# Weights of the paper's losses: of the image, of the classes' distance, and of an even use.
IMAGE, CLASSES, EVEN = 1000.0, 1.0, 6.0


def around_mean(lr: Tensor, spec: ModelSpec) -> tuple[Tensor, Tensor]:
    """Tiles (N, 3, t, t) around the mean, and enlarged bilinearly."""
    place = Placement.whole((lr.shape[-2], lr.shape[-1]), Fraction(spec.scale))
    return lr - lr.new_tensor(spec.mean).view(3, 1, 1), resample(lr, place, "bilinear")


def all_of(network: nn.Module, lr: Tensor, spec: ModelSpec) -> tuple[Tensor, Tensor]:
    """Probabilities (N, branches) and every branch's image (N, branches, 3, H, W) of tiles lr (N,
    3, t, t).
    """
    assert isinstance(network, ClassSr)
    centred, residual = around_mean(lr, spec)
    shares = torch.softmax(network.classifier(lr).float(), dim=1)
    return shares, torch.stack(
        [residual + branch(centred).float() for branch in network.branches], dim=1
    )


def lightest(network: nn.Module, lr: Tensor, spec: ModelSpec) -> Tensor:
    """The lightest branch's image."""
    return all_of(network, lr, spec)[1][:, 0]


def chosen(network: nn.Module, lr: Tensor, spec: ModelSpec) -> Tensor:
    """Each tile by its most probable branch."""
    shares, images = all_of(network, lr, spec)
    return images[torch.arange(len(lr)), shares.argmax(dim=1)]


def branches_loss(network: nn.Module, lr: Tensor, hr: Tensor, spec: ModelSpec) -> Tensor:
    """Mean absolute error of each branch but the heaviest, at all tiles."""
    assert isinstance(network, ClassSr)
    centred, residual = around_mean(lr, spec)
    return torch.stack(
        [F.l1_loss(residual + branch(centred).float(), hr) for branch in network.branches[:-1]]
    ).mean()


def choice_loss(network: nn.Module, lr: Tensor, hr: Tensor, spec: ModelSpec) -> Tensor:
    """What choosing by these probabilities leaves. How evenly a few tiles use the branches is
    chance: asking for it hid all else.
    """
    with torch.no_grad():
        errors = (all_of(network, lr, spec)[1] - hr[:, None]).square().mean(dim=(2, 3, 4))
    assert isinstance(network, ClassSr)
    return expected_error(torch.softmax(network.classifier(lr).float(), dim=1), errors)


def paper_loss(network: nn.Module, lr: Tensor, hr: Tensor, spec: ModelSpec) -> Tensor:
    """The paper's: L1 of the mixture, the class loss (equation 3) and the average loss (equation
    4).
    """
    shares, images = all_of(network, lr, spec)
    mixture = (shares[:, :, None, None, None] * images).sum(dim=1)
    pairs = torch.combinations(torch.arange(shares.shape[1]))
    apart = (shares[:, pairs[:, 0]] - shares[:, pairs[:, 1]]).abs().sum(dim=1).mean()
    return IMAGE * F.l1_loss(mixture, hr) - CLASSES * apart + EVEN * uneven(shares)


def stages(branches: int) -> dict[str, Task]:
    """Tasks by name, in their order; the heaviest branch comes trained. "mixture" is the paper's
    way.
    """
    lighter = tuple(f"branches.{index}." for index in range(branches - 1))
    return {
        "branches": Task(branches_loss, lightest, lighter),
        "choice": Task(choice_loss, chosen, ("classifier.",)),
        "mixture": Task(paper_loss, chosen, ("classifier.", *lighter)),
    }
