"""Training of APE: all exits at once, and the regressor that says when to leave.

arXiv 2203.11589, section 3.3. The paper cuts patches and decides for each as a whole; where the
network has cells, those of a crop are decided for. The paper's regressor learns 1 - tanh(gain in dB
over the exit before), so that a window leaves where the last step brought little
(benchmarks/reproduce). What matters is what the steps to come would bring: here it learns 1 -
tanh(gain of the last exit over this one).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tierscale.models.adaptive.ape.network import Ape
from tierscale.models.adaptive.cell_grid import cell_means
from tierscale.models.contract.checkpoints import ModelSpec
from tierscale.models.train.tasks import Task, centred, enlarged_by, expect

# Share of the exits before the last in the error, and weight of the regressor's squared error.
EARLY, CAPACITY = 1.0, 0.01


def enlarge(network: nn.Module, lr: Tensor, spec: ModelSpec) -> tuple[Tensor, Tensor]:
    """Images at all exits (exits, N, 3, H, W), and what the regressor says there.

    (exits, N), or (exits, N, rows, columns) of cells.
    """
    exits = expect(network, Ape)(centred(lr, spec))
    images = torch.stack(exits.images).float() + enlarged_by("bilinear", lr, spec)
    return images, exits.capacity.float()


def last(network: nn.Module, lr: Tensor, spec: ModelSpec) -> Tensor:
    """The image of the last exit."""
    return enlarge(network, lr, spec)[0][-1]


def decibels(images: Tensor, hr: Tensor, cell: int | None) -> Tensor:
    """PSNR of images (exits, N, 3, H, W) in dB: (exits, N), or (exits, N, rows, columns) of cells.

    cell: output pixels a side of a cell.
    """
    errors = (images - hr).square().mean(dim=2)
    means = errors.mean(dim=(2, 3)) if cell is None else cell_means(errors, cell)
    return -10 * means.clamp_min(1e-10).log10()


def gain_to_come(reached: Tensor) -> Tensor:
    """dB that the last exit has over each one, of the PSNR at all exits (exits, …)."""
    return reached[-1:] - reached


def loss_of(
    network: nn.Module,
    lr: Tensor,
    hr: Tensor,
    spec: ModelSpec,
    gain: Callable[[Tensor], Tensor] = gain_to_come,
) -> Tensor:
    """L1 of the last exit and the mean of the others', and the regressor's squared error.

    gain: what the regressor learns the lack of, of the PSNR at all exits.
    """
    method = expect(network, Ape)
    images, capacity = enlarge(method, lr, spec)
    errors = (images - hr).abs().mean(dim=(1, 2, 3, 4))
    with torch.no_grad():
        reached = decibels(images, hr, None if method.cell is None else method.cell * method.scale)
        target = 1 - torch.tanh(gain(reached).clamp_min(0))
    return errors[-1] + EARLY * errors[:-1].mean() + CAPACITY * F.mse_loss(capacity, target)


STAGES = {"whole": Task(loss_of, last)}
