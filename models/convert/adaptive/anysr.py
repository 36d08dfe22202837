"""AnySR as its authors publish it: an EDSR or RDN encoder, and the SRNO head."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tierscale.models.adaptive.anysr.slim_edsr import SlimEdsr
from tierscale.models.adaptive.anysr.slim_rdn import SlimRdn
from tierscale.models.adaptive.anysr.srno import Srno
from tierscale.models.contract.checkpoints import Checkpoint, ModelSpec
from tierscale.models.convert.backbones import rdn
from tierscale.models.convert.mapping import Mean, constructor_arguments, rename_weights

ORIGIN = "the upstream AnySR"
# Upstream layer -> ours, within a block of the EDSR encoder.
BLOCK = {"conv1": "first", "conv2": "second", "fc1": "gate.squeeze", "fc2": "gate.excite"}
# Upstream layer -> ours, of the head and within its attention.
HEAD = {"conv00": "lift", "fc1": "first", "fc2": "second"}
NORMS = {"kln": "key", "vln": "value"}
PROJECTIONS = {"o_proj1": "first", "o_proj2": "second"}


def edsr_name(theirs: str, blocks: int) -> str | None:
    """Our name for an upstream weight of the EDSR encoder with `blocks` blocks; None for a mean."""
    stage, *rest = theirs.split(".")
    if stage in ("sub_mean", "add_mean"):
        return None
    if stage == "head":
        return f"entry.{rest[1]}"
    if rest[0] == str(blocks):
        return f"join.{rest[1]}"
    return f"blocks.{rest[0]}.{BLOCK[rest[1]]}.{rest[2]}"


def head_name(theirs: str) -> str:
    """Our name for an upstream weight of the head, the three projections already apart."""
    stage, rest = theirs.split(".", 1)
    if stage in HEAD:
        return f"{HEAD[stage]}.{rest}"
    attention = f"attention.{stage[4:]}"  # conv0, conv1
    layer, kind = rest.split(".")
    if layer in NORMS:
        return f"{attention}.{NORMS[layer]}_{'gain' if kind == 'weight' else 'shift'}"
    return f"{attention}.{PROJECTIONS.get(layer, layer)}.{kind}"


def convert_encoder(
    tensors: Mapping[str, Tensor],
) -> tuple[str, dict[str, int], dict[str, Tensor]]:
    """Kind, arguments and weights of an upstream encoder, which is fed colours twice as large.

    The shapes tell the arguments. ValueError: it is neither EDSR nor RDN, or does not fit.
    """
    flat = {
        name: t[:, :, 0, 0] if ".fc" in name and t.ndim == 4 else t for name, t in tensors.items()
    }
    if "head.0.weight" in flat:
        blocks = max(
            (int(name.split(".")[1]) for name in flat if name.startswith("body.")), default=0
        )
        arguments = {"blocks": blocks, "features": flat["head.0.weight"].shape[0]}
        weights = rename_weights(
            SlimEdsr(**arguments), flat, lambda name: edsr_name(name, blocks), ORIGIN
        )
        return "edsr", arguments, {**weights, "entry.weight": 2 * weights["entry.weight"]}
    if "SFENet1.weight" in flat:
        arguments = rdn.sizes(flat, ORIGIN)
        del arguments["layers"]
        weights = rename_weights(SlimRdn(**arguments), flat, rdn.own_name, ORIGIN)
        return "rdn", arguments, {**weights, "first.weight": 2 * weights["first.weight"]}
    raise ValueError(
        f"{ORIGIN} needs 'encoder.head.0.weight' or 'encoder.SFENet1.weight', and has neither"
    )


def convert_head(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any], features: int
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Arguments and weights of the upstream SRNO head, whose colours are twice as large as 0..1.

    config: {"width", "blocks"}, where blocks are the heads; the shapes tell them where they are
    missing. features: of the encoder, whose weights are passed over. ValueError: it does not fit.
    """
    for name in ("conv00.weight", "conv0.kln.weight"):
        if name not in tensors:
            raise ValueError(f"{ORIGIN} lacks {name!r}; only its SRNO head can be converted")
    arguments = {
        "width": int(config.get("width", tensors["conv00.weight"].shape[0])),
        "heads": int(config.get("blocks", tensors["conv0.kln.weight"].shape[0])),
    }
    weights = rename_weights(
        Srno(features, **arguments),
        split_projections(tensors, arguments["heads"]),
        head_name,
        ORIGIN,
    )
    for name in ("second.weight", "second.bias"):
        weights[name] = weights[name] / 2
    return arguments, weights


def split_projections(tensors: Mapping[str, Tensor], heads: int) -> dict[str, Tensor]:
    """The head's weights as linear layers, each joint projection as query, key and value."""
    apart: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.startswith("encoder."):
            continue
        flat = tensor[:, :, 0, 0] if tensor.ndim == 4 else tensor
        if ".qkv_proj." not in name:
            apart[name] = flat.squeeze(1) if "ln." in name else flat
            continue
        # By heads, and within each query, key, value.
        pieces = flat.unflatten(0, (heads, 3, -1)).unbind(1)
        for kind, piece in zip(("query", "key", "value"), pieces, strict=True):
            apart[name.replace("qkv_proj", kind)] = piece.flatten(0, 1)
    return apart


def from_upstream(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any], mean: Mean
) -> Checkpoint:
    """Upstream weights, with an EDSR or RDN encoder and the SRNO head, as our checkpoint.

    config: of the head, {"width", "blocks"}, where blocks are the heads of its attention; the
    shapes tell what is missing. Input and output of the upstream network are 2 * value - 1, and
    the encoder takes a mean of its own away: all that becomes part of the mean, the first layer and
    the last; `mean` is not used. ValueError naming a key that does not fit.
    """
    part = {
        name.removeprefix("encoder."): tensor
        for name, tensor in tensors.items()
        if name.startswith("encoder.")
    }
    kind, encoder_arguments, encoder = convert_encoder(part)
    head_arguments, head = convert_head(
        tensors, constructor_arguments(config), encoder_arguments["features"]
    )
    weights = {f"encoder.{name}": tensor for name, tensor in encoder.items()}
    weights |= {f"head.{name}": tensor for name, tensor in head.items()}
    arguments = {
        "encoder": kind,
        "encoder_arguments": encoder_arguments,
        "head": "srno",
        "head_arguments": head_arguments,
    }
    red, green, blue = (
        (0.5 - part["sub_mean.bias"] / 2).tolist() if "sub_mean.bias" in part else (0.5,) * 3
    )
    return Checkpoint(ModelSpec("anysr", 0, arguments, (red, green, blue), "bilinear"), weights)
