"""SRResNet as PCSR and ClassSR publish it."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tierscale.models.backbones.srresnet import Srresnet
from tierscale.models.contract.checkpoints import Checkpoint, ModelSpec
from tierscale.models.convert.mapping import (
    Mean,
    constructor_arguments,
    rename_weights,
    some_names,
)

ORIGIN = "the upstream SRResNet"
# Upstream layer -> ours, outside the residual blocks.
LAYERS = {
    "conv_first": "entry",
    "upconv1": "grow.0",
    "upconv2": "grow.1",
    "HRconv": "smooth",
    "conv_last": "exit",
}


def own_name(theirs: str) -> str:
    """Our name for an upstream weight."""
    stage, _, rest = theirs.partition(".")
    if stage == "recon_trunk":
        block, layer, part = rest.split(".")
        return f"blocks.{block}.{'first' if layer == 'conv1' else 'second'}.{part}"
    return f"{LAYERS.get(stage, stage)}.{rest}"


def from_upstream(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any], mean: Mean
) -> Checkpoint:
    """Upstream weights as our checkpoint.

    config: constructor arguments nf, nb and upscale; the shapes tell those that are missing.
    ValueError naming a key that does not fit.
    """
    theirs = constructor_arguments(config)
    first, grown = (tensors.get(f"{name}.weight") for name in ("conv_first", "upconv1"))
    if first is None or grown is None:
        raise ValueError(
            f"{ORIGIN} needs 'conv_first.weight' and 'upconv1.weight' but only has"
            f" {some_names(tensors)}"
        )
    growth = round((grown.shape[0] / grown.shape[1]) ** 0.5)
    by_shape = growth * growth if "upconv2.weight" in tensors else growth
    scale = int(theirs.get("upscale", theirs.get("scale", by_shape)))
    numbers = [int(name.split(".")[1]) for name in tensors if name.startswith("recon_trunk.")]
    features = int(theirs.get("nf", first.shape[0]))
    blocks = int(theirs.get("nb", 1 + max(numbers, default=-1)))
    return Checkpoint(
        ModelSpec("srresnet", scale, {"features": features, "blocks": blocks}, mean, "bilinear"),
        rename_weights(Srresnet(scale, features, blocks), tensors, own_name, ORIGIN),
    )
