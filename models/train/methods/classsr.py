"""Training of ClassSR: the lighter branches, then the classifier.

arXiv 2103.04039, section 3.4. The paper trains classifier and branches together on the error of the
probability-weighted image, with a loss that drives probabilities apart and one for an even use
(benchmarks/reproduce). A tile is never a mixture when it is used: here each branch learns from all
tiles, and the classifier from the error that its choice would leave.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tierscale.models.adaptive.classsr.network import ClassSr
from tierscale.models.contract.checkpoints import ModelSpec
from tierscale.models.train.methods.choice import expected_error
from tierscale.models.train.tasks import Task, centred, enlarged_by, expect


def enlarge_by_all(network: nn.Module, lr: Tensor, spec: ModelSpec) -> tuple[Tensor, Tensor]:
    """Every branch's image of tiles lr (N, 3, t, t), and how probable each is.

    Probabilities (N, branches), images (N, branches, 3, H, W).
    """
    method = expect(network, ClassSr)
    inputs, residual = centred(lr, spec), enlarged_by("bilinear", lr, spec)
    shares = torch.softmax(method.classifier(lr).float(), dim=1)
    images = [residual + branch(inputs).float() for branch in method.branches]
    return shares, torch.stack(images, dim=1)


def lightest(network: nn.Module, lr: Tensor, spec: ModelSpec) -> Tensor:
    """The lightest branch's image."""
    return enlarge_by_all(network, lr, spec)[1][:, 0]


def chosen(network: nn.Module, lr: Tensor, spec: ModelSpec) -> Tensor:
    """Each tile by its most probable branch."""
    shares, images = enlarge_by_all(network, lr, spec)
    return images[torch.arange(len(lr)), shares.argmax(dim=1)]


def branches_loss(network: nn.Module, lr: Tensor, hr: Tensor, spec: ModelSpec) -> Tensor:
    """Mean absolute error of each branch but the heaviest, at all tiles."""
    inputs, residual = centred(lr, spec), enlarged_by("bilinear", lr, spec)
    branches = expect(network, ClassSr).branches[:-1]
    return torch.stack(
        [F.l1_loss(residual + branch(inputs).float(), hr) for branch in branches]
    ).mean()


def choice_loss(network: nn.Module, lr: Tensor, hr: Tensor, spec: ModelSpec) -> Tensor:
    """What choosing by these probabilities leaves.

    How evenly a few tiles use the branches is chance: asking for it hid all else.
    """
    with torch.no_grad():
        images = enlarge_by_all(network, lr, spec)[1]
        errors = (images - hr[:, None]).square().mean(dim=(2, 3, 4))
    logits = expect(network, ClassSr).classifier(lr).float()
    return expected_error(torch.softmax(logits, dim=1), errors)


def lighter_parts(branches: int) -> tuple[str, ...]:
    """First names of the parameters of all branches but the heaviest."""
    return tuple(f"branches.{index}." for index in range(branches - 1))


def stages(branches: int) -> dict[str, Task]:
    """Tasks by name, in their order; the heaviest branch comes trained."""
    return {
        "branches": Task(branches_loss, lightest, lighter_parts(branches)),
        "choice": Task(choice_loss, chosen, ("classifier.",)),
    }
