"""CARN-M as PCSR and ClassSR publish it: names, arguments, and batch norms folded away."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tierscale.models.backbones.carn import Carn
from tierscale.models.contract.checkpoints import Checkpoint, ModelSpec
from tierscale.models.convert.mapping import (
    Mean,
    constructor_arguments,
    rename_weights,
    some_names,
)

ORIGIN = "the upstream CARN"
# Place in the upstream residual unit -> layer of ours.
UNIT = {"0": "first", "2": "second", "4": "mix"}


def own_name(theirs: str) -> str | None:
    """Our name for an upstream weight; None for one that inference does not need."""
    stage, *rest = theirs.split(".")
    if rest[-1] == "num_batches_tracked" or stage in ("sub_mean", "add_mean"):
        return None
    if stage == "upsample":
        # upsample.up.body.3.weight: each growing convolution is followed by a ReLU and a shuffle
        return f"grow.{int(rest[2]) // 3}.{rest[3]}"
    if stage[0] == "c":  # c2.0.weight
        return f"merges.{int(stage[1:]) - 1}.{'.'.join(rest)}"
    if stage[0] == "b" and rest[0] == "b1":  # b2.b1.body.4.weight: the one residual unit of a block
        return f"blocks.{int(stage[1:]) - 1}.unit.{UNIT[rest[2]]}.{rest[3]}"
    if stage[0] == "b":  # b2.c3.0.weight
        return f"blocks.{int(stage[1:]) - 1}.merges.{int(rest[0][1:]) - 1}.{'.'.join(rest[1:])}"
    return theirs


def from_upstream(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any], mean: Mean
) -> Checkpoint:
    """Upstream weights as our checkpoint, batch norms folded away.

    config: constructor arguments nf, scale and group; the shapes tell those that are missing.
    ValueError naming a key that does not fit.
    """
    arguments = constructor_arguments(config)
    inputs = {
        name: tensors[name].shape
        for name in ("entry.weight", "b1.b1.body.0.weight")
        if name in tensors
    }
    if len(inputs) < 2:
        raise ValueError(
            f"{ORIGIN} needs 'entry.weight' and 'b1.b1.body.0.weight' but only has"
            f" {some_names(tensors)}"
        )
    width = inputs["entry.weight"][0]
    features = int(arguments.get("nf", width))
    groups = int(arguments.get("group", width // inputs["b1.b1.body.0.weight"][1]))
    network = Carn(int(arguments.get("scale", _scale(tensors))), features, groups, norm=True)
    network.load_state_dict(rename_weights(network, tensors, own_name, ORIGIN))
    return Checkpoint(
        ModelSpec("carn", network.scale, {"features": features, "groups": groups}, mean),
        network.eval().fold().state_dict(),
    )


def _scale(tensors: Mapping[str, Tensor]) -> int:
    """The scale of the growing convolutions: 4 for two of them, the root of its growth for one."""
    shapes = [
        tensor.shape
        for name, tensor in tensors.items()
        if name.startswith("upsample.") and name.endswith(".weight")
    ]
    if len(shapes) == 2 or not shapes:
        return 4
    return round((shapes[0][0] / tensors["entry.weight"].shape[0]) ** 0.5)
