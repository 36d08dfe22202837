"""VDSR as APE publishes it, for values 0..255."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor

from tierscale.models.backbones.vdsr import Vdsr
from tierscale.models.contract.checkpoints import Checkpoint, ModelSpec
from tierscale.models.convert.mapping import (
    Mean,
    constructor_arguments,
    mean_of_shifts,
    reading_configuration,
    rename_weights,
    single_scale,
    to_unit_range,
)


def own_name(theirs: str, layers: int) -> str | None:
    """Our name for an upstream weight; None for the layers that shift by the mean.

    layers: of the network, the first and the last among them.
    """
    layer, _, part = theirs.rpartition(".")
    if layer in ("sub_mean", "add_mean"):
        return None
    stage, number, _ = layer.split(".")  # body.3.0
    if stage != "body":
        return theirs
    index = int(number)
    if index == 0:
        return f"first.convolve.{part}"
    return f"last.{part}" if index == layers - 1 else f"middle.{index - 1}.convolve.{part}"


def own_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of our VDSR from the upstream ones; ValueError naming one that is missing."""
    with reading_configuration("VDSR", "n_resblocks, n_feats and scale"):
        return {"layers": config["n_resblocks"], "features": config["n_feats"]}


def from_upstream(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any], mean: Mean
) -> Checkpoint:
    """Upstream weights, for values 0..rgb_range, as our checkpoint; `mean` is not used.

    config: n_resblocks (all layers), n_feats, scale, rgb_range (255 where it is missing). The mean
    is in the weights. ValueError naming what does not fit.
    """
    theirs = constructor_arguments(config)
    top, scale = float(theirs.get("rgb_range", 255)), single_scale(theirs.get("scale", 4))
    arguments = own_arguments(theirs)
    network = Vdsr(scale, **arguments)
    names = partial(own_name, layers=int(theirs["n_resblocks"]))
    renamed = rename_weights(network, tensors, names, "the upstream VDSR")
    return Checkpoint(
        ModelSpec("vdsr", scale, arguments, mean_of_shifts(tensors, "sub_mean", "add_mean", top)),
        to_unit_range(renamed, "first.convolve", "last", top),
    )
