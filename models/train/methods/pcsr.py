"""Training of PCSR (arXiv 2407.21448, section 3.4) in stages: encoder and heaviest sampler; the
lighter samplers; the classifier.

The paper trains each lighter sampler together with the classifier, on the error of the
probability-weighted mixture of all samplers' pixels and with an even use of the samplers: "mixture"
here, after the lighter samplers have learnt from all pixels. "choice" in its place trains the
classifier alone, on the error that its choice would leave. It came out behind where the samplers
differ much (docs/training.md).
"""

from collections.abc import Callable
from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tierscale.models.adaptive.pcsr.network import Pcsr
from tierscale.models.contract.checkpoints import ModelSpec
from tierscale.models.contract.upscaler import Placement
from tierscale.models.runtime.nearest import Axis, axes
from tierscale.models.runtime.resample import resample
from tierscale.models.train.methods.choice import expected_error, uneven
from tierscale.models.train.trainer import Task

# Weights of the paper's two losses.
MIXTURE, EVEN = 1000.0, 3.0


def grid(lr: Tensor, spec: ModelSpec) -> tuple[Axis, Axis, Tensor, Tensor]:
    """Of crops lr (N, 3, h, w): rows and columns, the crops around the mean, and the bilinear
    enlargement (N, 3, H, W).
    """
    height, width = lr.shape[-2:]
    place = Placement.whole((height, width), Fraction(spec.scale))
    rows, columns = axes(place, 0, height, width)
    return (
        rows,
        columns,
        lr - lr.new_tensor(spec.mean).view(3, 1, 1),
        resample(lr, place, "bilinear"),
    )


def by(index: int) -> Callable[[nn.Module, Tensor, ModelSpec], Tensor]:
    """Enlarging by one sampler alone."""

    def image(network: nn.Module, lr: Tensor, spec: ModelSpec) -> Tensor:
        assert isinstance(network, Pcsr)
        rows, columns, centred, residual = grid(lr, spec)
        return residual + network.samplers[index](network.encoder(centred), rows, columns).float()

    return image


def all_of(network: nn.Module, lr: Tensor, spec: ModelSpec) -> tuple[Tensor, Tensor]:
    """Probabilities (N, samplers, H, W) and every sampler's image (N, samplers, 3, H, W)."""
    assert isinstance(network, Pcsr)
    rows, columns, centred, residual = grid(lr, spec)
    logits, made = network(centred, rows, columns)
    return torch.softmax(logits.float(), dim=1), torch.stack(
        [residual + one.float() for one in made], dim=1
    )


def chosen(network: nn.Module, lr: Tensor, spec: ModelSpec) -> Tensor:
    """Each pixel by the sampler of the largest probability: k = 0, without refinement."""
    shares, images = all_of(network, lr, spec)
    best = shares.argmax(dim=1)[:, None, None].expand(-1, 1, 3, -1, -1)
    return images.gather(1, best)[:, 0]


def lighter_loss(network: nn.Module, lr: Tensor, hr: Tensor, spec: ModelSpec) -> Tensor:
    """Mean absolute error of each sampler but the heaviest, at all pixels."""
    assert isinstance(network, Pcsr)
    rows, columns, centred, residual = grid(lr, spec)
    features = network.encoder(centred)
    errors = [
        F.l1_loss(residual + sampler(features, rows, columns).float(), hr)
        for sampler in network.samplers[:-1]
    ]
    return torch.stack(errors).mean()


def choice_loss(network: nn.Module, lr: Tensor, hr: Tensor, spec: ModelSpec) -> Tensor:
    """What choosing by these probabilities leaves."""
    shares, images = all_of(network, lr, spec)
    return expected_error(
        shares, (images - hr[:, None]).square().mean(dim=2).detach()
    ) + EVEN * uneven(shares)


def paper_loss(network: nn.Module, lr: Tensor, hr: Tensor, spec: ModelSpec) -> Tensor:
    """The paper's: L1 of the mixture, and the distance of the mean probabilities from an even use
    (section 3.4).
    """
    shares, images = all_of(network, lr, spec)
    mixture = (shares[:, :, None] * images).sum(dim=1)
    return MIXTURE * F.l1_loss(mixture, hr) + EVEN * uneven(shares)


def heaviest_loss(network: nn.Module, lr: Tensor, hr: Tensor, spec: ModelSpec) -> Tensor:
    """Mean absolute error of the heaviest sampler at all pixels."""
    return F.l1_loss(by(-1)(network, lr, spec), hr)


def stages(samplers: int) -> dict[str, Task]:
    """Tasks by name, in their order; "mixture" is the paper's way and stands in the place of
    "choice", or of that and "lighter".
    """
    lighter = tuple(f"samplers.{index}." for index in range(samplers - 1))
    return {
        "heaviest": Task(heaviest_loss, by(-1), ("encoder.", f"samplers.{samplers - 1}.")),
        "lighter": Task(lighter_loss, by(0), lighter),
        "choice": Task(choice_loss, chosen, ("classifier.",)),
        "mixture": Task(paper_loss, chosen, ("classifier.", *lighter)),
    }
