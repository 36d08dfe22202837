"""Training of AnySR: a scale for each batch, and a share of the hidden channels.

arXiv 2407.04241, section 3.4. The paper draws all scales alike, and takes the width that goes with
the scale or, half of the time, all channels (benchmarks/reproduce). Here a third of the batches has
the largest scale, which is asked for most and learnt last; and every batch trains full width beside
a smaller one, half of the time the least, so that any effort is known at any scale (Yu and Huang
2019, Universally Slimmable Networks, section 3.2).
"""

from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tierscale.models.adaptive.anysr.network import LEAST, AnySr
from tierscale.models.contract.checkpoints import ModelSpec
from tierscale.models.contract.upscaler import Placement, hr_length
from tierscale.models.runtime.nearest import axes
from tierscale.models.runtime.resample import resample
from tierscale.models.train.data.shrink import shrink
from tierscale.models.train.tasks import LARGEST, Task, centred, expect

# Scales that are drawn, in tenths; crops are cut from those that were drawn for the largest.
FIRST, MOST = int(10 * LEAST), 10 * LARGEST
# Widths beside the full one, of which one is drawn; effort asks for any of them at any scale. The
# least comes as often as all others.
WIDTHS = (0.5, 0.5, 0.5, 0.5, 0.6, 0.7, 0.8, 0.9)


def enlarge(
    network: nn.Module, lr: Tensor, spec: ModelSpec, scale: Fraction, width: float
) -> Tensor:
    """lr (N, 3, h, w) at a scale and a share of the hidden channels."""
    height, width_lr = lr.shape[-2:]
    place = Placement(scale, (height, width_lr), ((0, 0),) * len(lr))
    rows, columns = axes(place, 0, height, width_lr)
    added = expect(network, AnySr)(centred(lr, spec), rows, columns, scale, width)
    return added.float() + resample(lr, place, "bilinear")


def drawn(lr: Tensor, count: int) -> int:
    """A number below `count` that follows from the crops, so that a resumed run draws it again."""
    return int(lr.double().sum().item() * 1000) % count


def at_scale(lr: Tensor, hr: Tensor, scale: Fraction) -> tuple[Tensor, Tensor]:
    """Crops for a scale up to LARGEST, of as many input pixels, cut from those for LARGEST."""
    side = lr.shape[-1]
    large = hr_length(side, scale)
    hr = hr[..., :large, :large]
    return shrink(hr, Fraction(large, side)), hr


def loss(network: nn.Module, lr: Tensor, hr: Tensor, spec: ModelSpec) -> Tensor:
    """L1 at full width and, from the same crops, at a smaller one."""
    scales = MOST - FIRST + 1
    scale = Fraction(min(FIRST + drawn(lr, 3 * scales // 2), MOST), 10)
    lr, hr = at_scale(lr, hr, scale)
    width = WIDTHS[drawn(lr, len(WIDTHS))]
    full, slim = (F.l1_loss(enlarge(network, lr, spec, scale, one), hr) for one in (1.0, width))
    return full + slim


def full(network: nn.Module, lr: Tensor, spec: ModelSpec) -> Tensor:
    """The image at the largest scale and full width."""
    with torch.no_grad():
        return enlarge(network, lr, spec, Fraction(LARGEST), 1.0)


STAGES = {"whole": Task(loss, full)}
