"""AnySR against recorded outputs of the upstream network."""

from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.reference_dense import compare
from tests.reference_file import Line, Reference
from tierscale.models.adaptive.anysr.network import AnySr, width_by_scale
from tierscale.models.contract.checkpoints import fill
from tierscale.models.convert.adaptive.anysr import from_upstream
from tierscale.models.runtime.nearest import Axis

TOLERANCE = 2e-5


def check(reference: Reference) -> list[Line]:
    """One line for each out.CASE.sSCALE.eENTIRE.sr and .feat_mean_abs."""
    checkpoint = from_upstream(reference.weights, reference.config, reference.mean)
    network = AnySr(**checkpoint.spec.arguments).eval()
    fill(network, checkpoint.tensors, reference.path.name)
    lines = []
    for name, setting in reference.settings.items():
        scale, lr = Fraction(str(setting["scale"])), reference.inputs[f"{name.split('.')[0]}.lr"]
        centred = lr - torch.tensor(checkpoint.spec.mean).view(3, 1, 1)
        width = 1.0 if setting["entire_net"] else width_by_scale(network.kind, scale)
        with torch.inference_mode():
            found = {"feat_mean_abs": network.encoder(centred, scale, width).abs().mean(dim=(2, 3))}
            rows, columns = (
                Axis(Fraction(count, length), 0, count, 0, length)
                for count, length in zip(setting["out_hw"], lr.shape[-2:], strict=True)
            )
            found["sr"] = enlarged(
                network, lr, centred, rows, columns, scale, width, setting.get("cell_multiplier", 1)
            )
        for kind, made in found.items():
            if f"{name}.{kind}" in reference.outputs:
                lines.append(
                    compare(
                        f"out.{name}.{kind}",
                        made,
                        reference.outputs[f"{name}.{kind}"],
                        TOLERANCE,
                        1e-5,
                    )
                )
    return lines


def enlarged(
    network: AnySr,
    lr: Tensor,
    centred: Tensor,
    rows: Axis,
    columns: Axis,
    scale: Fraction,
    width: float,
    stretch: float,
) -> Tensor:
    """The upstream grid.

    As many output pixels as the size was rounded to, over the whole image.
    """
    base = F.interpolate(lr, size=(rows.count, columns.count), mode="bilinear", align_corners=False)
    features = network.encoder(centred, scale, width)
    return base + network.head(features, rows, columns, stretch)
