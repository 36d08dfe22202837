"""The papers' own ways of training APE, AdaDSR, AnySR and ClassSR, each as a stage called "paper".

Ours, in models/train/methods, depart from them where that came out better (docs/training.md).
PCSR's "mixture" is the paper's, and is among ours.
"""

from fractions import Fraction
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tierscale.models.adaptive.adadsr.network import Adadsr
from tierscale.models.adaptive.anysr.network import width_by_scale
from tierscale.models.contract.checkpoints import ModelSpec
from tierscale.models.train.methods import adadsr, anysr, ape, classsr
from tierscale.models.train.methods.choice import uneven
from tierscale.models.train.recipes import Stages
from tierscale.models.train.tasks import Task, expect

# Weights of ClassSR's losses: of the image, of the classes' distance, and of an even use.
IMAGE, CLASSES, EVEN = 1000.0, 1.0, 6.0


def adadsr_loss(network: nn.Module, lr: Tensor, hr: Tensor, spec: ModelSpec) -> Tensor:
    """L1 at a random budget for each crop, and how far the mean depth of each goes beyond its own.

    arXiv 2004.03915, section 3.3.
    """
    method = expect(network, Adadsr)
    budget = method.depth * adadsr.drawn(lr)
    image, depths = adadsr.enlarge(method, lr, spec, budget)
    # guess: the weight of the depth loss is ours; the paper's is for depths that are counted in
    # blocks of another network.
    beyond = F.relu(depths.mean(dim=(1, 2, 3)) - budget).mean()
    return F.l1_loss(image, hr) + adadsr.DEPTH * beyond / method.depth


def anysr_loss(network: nn.Module, lr: Tensor, hr: Tensor, spec: ModelSpec) -> Tensor:
    """L1 at the width of the scale or, half of the time, at full width; all scales alike.

    arXiv 2407.04241, section 3.4.
    """
    scale = Fraction(anysr.FIRST + anysr.drawn(lr, anysr.MOST - anysr.FIRST + 1), 10)
    lr, hr = anysr.at_scale(lr, hr, scale)
    width = width_by_scale("edsr", scale) if anysr.drawn(lr, 2) else 1.0
    return F.l1_loss(anysr.enlarge(network, lr, spec, scale, width), hr)


def gain_over_the_exit_before(reached: Tensor) -> Tensor:
    """dB that each exit has over the one before, of the PSNR at all exits (exits, …).

    The first exit's own PSNR is its gain (APE, arXiv 2203.11589, section 3.3).
    """
    return torch.cat([reached[:1], reached.diff(dim=0)])


def classsr_loss(network: nn.Module, lr: Tensor, hr: Tensor, spec: ModelSpec) -> Tensor:
    """L1 of the mixture, the class loss (equation 3) and the average loss (equation 4).

    arXiv 2103.04039, section 3.4.
    """
    shares, images = classsr.enlarge_by_all(network, lr, spec)
    mixture = (shares[:, :, None, None, None] * images).sum(dim=1)
    pairs = torch.combinations(torch.arange(shares.shape[1]))
    apart = (shares[:, pairs[:, 0]] - shares[:, pairs[:, 1]]).abs().sum(dim=1).mean()
    return IMAGE * F.l1_loss(mixture, hr) - CLASSES * apart + EVEN * uneven(shares)


def classsr_stages(spec: ModelSpec) -> dict[str, Task]:
    """ClassSR's one stage, which moves all but the heaviest branch."""
    lighter = classsr.lighter_parts(len(spec.arguments["branches"]))
    return {"paper": Task(classsr_loss, classsr.chosen, ("classifier.", *lighter))}


# Kind of network -> its stages, as recipes.STAGES holds ours.
PAPER_STAGES: Stages = {
    "ape": lambda spec: {
        "paper": Task(partial(ape.loss_of, gain=gain_over_the_exit_before), ape.last)
    },
    "adadsr": lambda spec: {"paper": Task(adadsr_loss, adadsr.half)},
    "anysr": lambda spec: {"paper": Task(anysr_loss, anysr.full)},
    "classsr": classsr_stages,
}
