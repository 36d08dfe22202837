"""APE as its authors publish it: a backbone's weights, and the regressor."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tierscale.models.adaptive.ape.network import Ape
from tierscale.models.contract.checkpoints import Checkpoint, ModelSpec, fill
from tierscale.models.convert.backbones import edsr, rcan, vdsr
from tierscale.models.convert.mapping import Mean, constructor_arguments

# Beginning of an upstream configuration's model -> what converts its backbone.
BACKBONES = {
    "edsr": edsr.from_upstream,
    "rcan": rcan.from_upstream,
    "vdsr": vdsr.from_upstream,
}
REGRESSOR = "regressor."


def from_upstream(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any], mean: Mean
) -> Checkpoint:
    """Upstream weights, with the upstream constructor arguments, as our checkpoint.

    config: model (such as "edsr_ape"), exit_interval, and those of the backbone. ValueError naming
    what does not fit.
    """
    theirs = constructor_arguments(config)
    backbone = str(theirs.get("model", "edsr")).partition("_")[0].lower()
    if backbone not in BACKBONES or "exit_interval" not in theirs:
        raise ValueError(
            "the configuration of an upstream APE needs exit_interval and a model on"
            f" {', '.join(BACKBONES)}, not {theirs.get('exit_interval')} and"
            f" {theirs.get('model')!r}"
        )
    plain = {name: t for name, t in tensors.items() if not name.startswith(REGRESSOR)}
    inner = BACKBONES[backbone](plain, config, mean)
    arguments = {"backbone": backbone, "every": theirs["exit_interval"], **inner.spec.arguments}
    weights = {f"network.{name}": tensor for name, tensor in inner.tensors.items()}
    # Pooling and flattening, which have no weights, come before the linear layer.
    weights |= {
        name.replace("regressor.2.", REGRESSOR): tensor
        for name, tensor in tensors.items()
        if name.startswith(REGRESSOR)
    }
    fill(Ape(inner.spec.scale, **arguments), weights, "the upstream APE")
    return Checkpoint(ModelSpec("ape", inner.spec.scale, arguments, inner.spec.mean), weights)
