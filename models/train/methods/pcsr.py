"""Training of PCSR: encoder and heaviest sampler; the lighter samplers; the classifier.

arXiv 2407.21448, section 3.4. The paper trains each lighter sampler together with the classifier,
on the error of the probability-weighted mixture of all samplers' pixels and with an even use of the
samplers: "mixture" here, after the lighter samplers have learnt from all pixels. "choice" in its
place trains the classifier alone, on the error that its choice would leave. It came out behind
where the samplers differ much (docs/training.md).
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
from tierscale.models.train.methods.choice import expected_error, uneven
from tierscale.models.train.tasks import Task, centred, enlarged_by, expect

# Weights of the paper's two losses.
MIXTURE, EVEN = 1000.0, 3.0


def output_axes(lr: Tensor, spec: ModelSpec) -> tuple[Axis, Axis]:
    """Output rows and columns of crops lr (N, 3, h, w)."""
    height, width = lr.shape[-2:]
    return axes(Placement.whole((height, width), Fraction(spec.scale)), 0, height, width)


def by_sampler(index: int) -> Callable[[nn.Module, Tensor, ModelSpec], Tensor]:
    """Enlarging by one sampler alone."""

    def image(network: nn.Module, lr: Tensor, spec: ModelSpec) -> Tensor:
        method = expect(network, Pcsr)
        features = method.encoder(centred(lr, spec))
        pixels = method.samplers[index](features, *output_axes(lr, spec)).float()
        return enlarged_by("bilinear", lr, spec) + pixels

    return image


def enlarge_by_all(network: nn.Module, lr: Tensor, spec: ModelSpec) -> tuple[Tensor, Tensor]:
    """Probabilities (N, samplers, H, W) and every sampler's image (N, samplers, 3, H, W)."""
    logits, samples = expect(network, Pcsr)(centred(lr, spec), *output_axes(lr, spec))
    residual = enlarged_by("bilinear", lr, spec)
    images = torch.stack([residual + sample.float() for sample in samples], dim=1)
    return torch.softmax(logits.float(), dim=1), images


def chosen(network: nn.Module, lr: Tensor, spec: ModelSpec) -> Tensor:
    """Each pixel by the sampler of the largest probability: k = 0, without refinement."""
    shares, images = enlarge_by_all(network, lr, spec)
    best = shares.argmax(dim=1)[:, None, None].expand(-1, 1, 3, -1, -1)
    return images.gather(1, best)[:, 0]


def lighter_loss(network: nn.Module, lr: Tensor, hr: Tensor, spec: ModelSpec) -> Tensor:
    """Mean absolute error of each sampler but the heaviest, at all pixels."""
    method, (rows, columns) = expect(network, Pcsr), output_axes(lr, spec)
    features, residual = method.encoder(centred(lr, spec)), enlarged_by("bilinear", lr, spec)
    errors = [
        F.l1_loss(residual + sampler(features, rows, columns).float(), hr)
        for sampler in method.samplers[:-1]
    ]
    return torch.stack(errors).mean()


def choice_loss(network: nn.Module, lr: Tensor, hr: Tensor, spec: ModelSpec) -> Tensor:
    """What choosing by these probabilities leaves."""
    shares, images = enlarge_by_all(network, lr, spec)
    errors = (images - hr[:, None]).square().mean(dim=2).detach()
    return expected_error(shares, errors) + EVEN * uneven(shares)


def mixture_loss(network: nn.Module, lr: Tensor, hr: Tensor, spec: ModelSpec) -> Tensor:
    """L1 of the mixture, and the distance of the mean probabilities from an even use.

    The paper's, section 3.4.
    """
    shares, images = enlarge_by_all(network, lr, spec)
    mixture = (shares[:, :, None] * images).sum(dim=1)
    return MIXTURE * F.l1_loss(mixture, hr) + EVEN * uneven(shares)


def heaviest_loss(network: nn.Module, lr: Tensor, hr: Tensor, spec: ModelSpec) -> Tensor:
    """Mean absolute error of the heaviest sampler at all pixels."""
    return F.l1_loss(by_sampler(-1)(network, lr, spec), hr)


def stages(samplers: int) -> dict[str, Task]:
    """Tasks by name, in their order; "mixture" stands in the place of "choice"."""
    lighter = tuple(f"samplers.{index}." for index in range(samplers - 1))
    heaviest = ("encoder.", f"samplers.{samplers - 1}.")
    return {
        "heaviest": Task(heaviest_loss, by_sampler(-1), heaviest),
        "lighter": Task(lighter_loss, by_sampler(0), lighter),
        "choice": Task(choice_loss, chosen, ("classifier.",)),
        "mixture": Task(mixture_loss, chosen, ("classifier.", *lighter)),
    }
