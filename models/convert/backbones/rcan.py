"""RCAN as the authors' code and APE publish it, for values 0..255."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor

from tierscale.models.backbones.rcan import Rcan
from tierscale.models.contract.checkpoints import Checkpoint, ModelSpec
from tierscale.models.convert.backbones import edsr
from tierscale.models.convert.mapping import (
    Mean,
    constructor_arguments,
    mean_of_shifts,
    numbered_layers,
    reading_configuration,
    rename_weights,
    single_scale,
    to_unit_range,
)

# Place in the upstream block -> layer of ours.
BLOCK = {
    "0": "first",
    "2": "second",
    "3.conv_du.0": "attention.squeeze",
    "3.conv_du.2": "attention.excite",
}


def own_name(theirs: str, growing: Sequence[str]) -> str | None:
    """Our name for an upstream weight, whose head and tail are EDSR's.

    growing: the upstream growing convolutions, numbered_layers("tail.0.").
    """
    layer, _, part = theirs.rpartition(".")
    stage, *inner = layer.split(".")
    if stage != "body" or len(inner) == 1:  # body.4: behind the last group
        return edsr.own_name(theirs, growing)
    if len(inner) == 3:  # body.0.body.2: behind the last block of a group
        return f"groups.{inner[0]}.join.{part}"
    # body.0.body.1.body.3.conv_du.0
    return f"groups.{inner[0]}.blocks.{inner[2]}.{BLOCK['.'.join(inner[4:])]}.{part}"


def own_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of our RCAN from the upstream ones; ValueError naming one that is missing."""
    with reading_configuration("RCAN", "n_resgroups, n_resblocks and n_feats"):
        return {
            "groups": config["n_resgroups"],
            "blocks": config["n_resblocks"],
            "features": config["n_feats"],
            "reduction": config.get("reduction", 16),
        }


def from_upstream(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any], mean: Mean
) -> Checkpoint:
    """Upstream weights, for values 0..rgb_range, as our checkpoint; `mean` is not used.

    config: n_resgroups, n_resblocks, n_feats, scale, reduction (16 where it is missing), rgb_range
    (255). The mean is in the weights. ValueError naming what does not fit.
    """
    theirs = constructor_arguments(config)
    top, scale = float(theirs.get("rgb_range", 255)), single_scale(theirs.get("scale", 4))
    arguments = own_arguments(theirs)
    names = partial(own_name, growing=numbered_layers(tensors, "tail.0."))
    renamed = rename_weights(Rcan(scale, **arguments), tensors, names, "the upstream RCAN")
    return Checkpoint(
        ModelSpec("rcan", scale, arguments, mean_of_shifts(tensors, "sub_mean", "add_mean", top)),
        to_unit_range(renamed, "entry", "tail.exit", top),
    )
