"""EDSR as the authors' PyTorch code and APE publish it, for values 0..255."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor

from tierscale.models.backbones.edsr import Edsr
from tierscale.models.contract.checkpoints import Checkpoint, ModelSpec
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
BLOCK = {"0": "first", "2": "second"}


def own_name(theirs: str, growing: Sequence[str]) -> str | None:
    """Our name for an upstream weight; None for the layers that shift by the mean.

    growing: the upstream growing convolutions, numbered_layers("tail.0.").
    """
    layer, _, part = theirs.rpartition(".")
    if layer in ("sub_mean", "add_mean"):
        return None
    if layer in growing:
        return f"tail.grow.{growing.index(layer)}.{part}"
    if layer in ("head.0", "tail.1"):
        return f"{'entry' if layer == 'head.0' else 'tail.exit'}.{part}"
    stage, index, *inner = layer.split(".")  # body.7.body.2; behind the last block body.8
    if stage != "body":
        return theirs
    return f"blocks.{index}.{BLOCK[inner[1]]}.{part}" if inner else f"join.{part}"


def own_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of our EDSR from the upstream ones; ValueError naming one that is missing."""
    with reading_configuration("EDSR", "n_resblocks, n_feats and scale"):
        return {
            "blocks": config["n_resblocks"],
            "features": config["n_feats"],
            "res_scale": config.get("res_scale", 1.0),
        }


def from_upstream(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any], mean: Mean
) -> Checkpoint:
    """Upstream weights, for values 0..rgb_range, as our checkpoint; `mean` is not used.

    config: n_resblocks, n_feats, scale, res_scale (1 where it is missing), rgb_range (255). The
    mean is in the weights. ValueError naming what does not fit.
    """
    theirs = constructor_arguments(config)
    top, scale = float(theirs.get("rgb_range", 255)), single_scale(theirs.get("scale", 4))
    arguments = own_arguments(theirs)
    names = partial(own_name, growing=numbered_layers(tensors, "tail.0."))
    renamed = rename_weights(Edsr(scale, **arguments), tensors, names, "the upstream EDSR")
    return Checkpoint(
        ModelSpec("edsr", scale, arguments, mean_of_shifts(tensors, "sub_mean", "add_mean", top)),
        to_unit_range(renamed, "entry", "tail.exit", top),
    )
