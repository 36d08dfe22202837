"""AdaDSR as its authors publish it, AdaEDSR and AdaRCAN, for values 0..255."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tierscale.models.adaptive.adadsr.network import BACKBONES, Adadsr
from tierscale.models.contract.checkpoints import Checkpoint, ModelSpec
from tierscale.models.convert.mapping import (
    Mean,
    constructor_arguments,
    mean_of_shifts,
    numbered_layers,
    rename_weights,
    single_scale,
    to_unit_range,
)

# Settings of the upstream code that change what is computed -> the only values that we convert.
CONVERTED = {
    "adapter_bound": None,
    "side_ca": False,
    "multi_adapter": False,
    "block_mode": "CRC",
    "with_depth": True,
}
# Upstream layer -> ours, within a block and outside the blocks.
BLOCK = {
    "layer0": "first",
    "layer2": "second",
    "cuca.conv_du.0": "attention.squeeze",
    "cuca.conv_du.2": "attention.excite",
}
ENDS = {"head.1": "entry", "body_lastconv": "join", "tail.0": "tail.exit"}


def own_name(theirs: str, growing: list[str]) -> str | None:
    """Our name for an upstream weight; None for the layers that shift by the mean.

    growing: the upstream growing convolutions, numbered_layers("up.").
    """
    layer, _, part = theirs.rpartition(".")
    if layer in ("head.0", "tail.1"):
        return None
    if layer in growing:
        return f"network.tail.grow.{growing.index(layer)}.{part}"
    if layer in ENDS:
        return f"network.{ENDS[layer]}.{part}"
    # layer2.0 is the PReLU before the convolution layer2.1.
    if match := re.fullmatch(r"predictor\.layer(\d+)(\.[01])?", layer):
        index = int(match[1])
        if match[2] == ".0":
            return f"predictor.slopes.{index - 1}.{part}"
        return f"predictor.layers.{index}.{part}"
    if match := re.fullmatch(r"(?:group(\d+)\.)?block(\d+)\.(.+)", layer):
        group = "" if match[1] is None else f"groups.{match[1]}."
        return f"network.{group}blocks.{match[2]}.{BLOCK[match[3]]}.{part}"
    if match := re.fullmatch(r"group(\d+)\.block\d+", layer):  # behind the last block of a group
        return f"network.groups.{match[1]}.join.{part}"
    return theirs


def own_arguments(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of our Adadsr from the upstream ones; the shapes tell widths.

    ValueError naming what is missing or not converted.
    """
    for name, value in CONVERTED.items():
        if config.get(name, value) != value:
            raise ValueError(
                f"an upstream AdaDSR with {name} {config[name]!r} cannot be converted, only with"
                f" {value!r}"
            )
    backbone = str(config.get("model", "adaedsr")).removeprefix("ada").partition("_")[0]
    if backbone not in BACKBONES:
        raise ValueError(
            f"AdaDSR is made on {', '.join(BACKBONES)}, not on {config.get('model')!r}"
        )
    try:
        arguments = {
            "backbone": backbone,
            "blocks": config["n_resblocks"],
            "features": config["n_feats"],
            "predictor_layers": config["adapter_layers"],
            "budget_place": config["adapter_pos"],
            "predictor_width": tensors["predictor.layer0.weight"].shape[0],
        }
        if backbone == "rcan":
            squeezed = tensors["group0.block0.cuca.conv_du.0.weight"].shape[0]
            reduction = config["n_feats"] // squeezed
            return {**arguments, "groups": config["n_groups"], "reduction": reduction}
    except KeyError as error:
        raise ValueError(
            f"an upstream AdaDSR lacks {error} in its configuration or its weights; it is not"
            f" one of {backbone}"
        ) from error
    return {**arguments, "res_scale": config.get("res_scale", 1.0)}


def from_upstream(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any], mean: Mean
) -> Checkpoint:
    """Upstream weights, for values 0..255, as our checkpoint; `mean` is not used.

    config: model (such as "adaedsr_model"), scale, n_resblocks, n_groups, n_feats, res_scale,
    adapter_layers and adapter_pos. The mean is in the weights. ValueError naming what does not fit.
    """
    theirs = constructor_arguments(config)
    scale = single_scale(theirs.get("scale", 4))
    arguments = own_arguments(tensors, theirs)
    growing = numbered_layers((name for name in tensors if tensors[name].ndim == 4), "up.")
    renamed = rename_weights(
        Adadsr(scale, **arguments),
        tensors,
        lambda name: own_name(name, growing),
        "the upstream AdaDSR",
    )
    return Checkpoint(
        ModelSpec("adadsr", scale, arguments, mean_of_shifts(tensors, "head.0", "tail.1", 255.0)),
        to_unit_range(renamed, "network.entry", "network.tail.exit", 255.0),
    )
