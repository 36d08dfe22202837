"""FSRCNN as PCSR and ClassSR publish it."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tierscale.models.backbones.fsrcnn import Fsrcnn
from tierscale.models.contract.checkpoints import Checkpoint, ModelSpec
from tierscale.models.convert.mapping import (
    Mean,
    constructor_arguments,
    rename_weights,
    some_names,
)

ORIGIN = "the upstream FSRCNN"


def own_name(theirs: str) -> str:
    """Our name for an upstream weight; the upstream body lists shrink, mapping and expand."""
    stage, rest = theirs.split(".", 1)
    if stage in ("head_conv", "tail_conv"):
        return f"{'extract' if stage == 'head_conv' else 'enlarge'}.{rest}"
    index, inner = rest.split(".", 1)
    if inner[0].isdigit():  # body_conv.0.1.weight: shrink and expand are lists of their own
        return f"{'shrink' if index == '0' else 'expand'}.{inner}"
    return f"map.{int(index) - 1}.{inner}"


def from_upstream(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any], mean: Mean
) -> Checkpoint:
    """Upstream weights as our checkpoint.

    config: constructor arguments d, s, m and upscale (4 where it is missing: no shape tells it);
    the shapes tell the others. ValueError naming a key that does not fit. The upstream transposed
    convolution makes scale * n pixels of n at scale 4 only; ours does at any scale, by leaving away
    a row and a column at the edges.
    """
    theirs = constructor_arguments(config)
    shrink = tensors.get("body_conv.0.0.weight")
    if shrink is None or shrink.ndim != 4:
        raise ValueError(
            f"{ORIGIN} needs 'body_conv.0.0.weight' but only has {some_names(tensors)}"
        )
    convolutions = sum(
        1
        for name, tensor in tensors.items()
        if name.startswith("body_conv.") and tensor.ndim == 4 and tensor.shape[-1] == 3
    )
    arguments: dict[str, Any] = {
        "features": int(theirs.get("d", shrink.shape[1])),
        "narrow": int(theirs.get("s", shrink.shape[0])),
        "mapping": int(theirs.get("m", convolutions)),
    }
    scale = int(theirs.get("upscale", theirs.get("scale", 4)))
    network = Fsrcnn(scale, **arguments)
    return Checkpoint(
        ModelSpec("fsrcnn", scale, arguments, mean),
        rename_weights(network, tensors, own_name, ORIGIN),
    )
