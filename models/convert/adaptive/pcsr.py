"""PCSR as its authors publish it: an encoder, a light and a heavy sampler, a classifier."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from tierscale.models.adaptive.pcsr.network import ENCODERS, Pcsr
from tierscale.models.contract.checkpoints import Checkpoint, ModelSpec
from tierscale.models.convert.backbones import carn, fsrcnn, srresnet
from tierscale.models.convert.mapping import Mean, rename_weights

# Upstream constructor argument -> ours, for each encoder.
ARGUMENTS = {
    "carn": {"nf": "features", "group": "groups"},
    "fsrcnn": {"d": "features", "s": "narrow", "m": "mapping"},
    "srresnet": {"nf": "features", "nb": "blocks"},
}
ENCODER_NAMES: dict[str, Callable[[str], str | None]] = {
    "carn": carn.own_name,
    "fsrcnn": fsrcnn.own_name,
    "srresnet": srresnet.own_name,
}
SAMPLERS = {"light_sampler": "samplers.0", "heavy_sampler": "samplers.1"}


def own_name(theirs: str, encoder: str) -> str | None:
    """Our name for an upstream weight; None for one of the encoder that inference does not need."""
    stage, rest = theirs.split(".", 1)
    if stage == "encoder":
        name = ENCODER_NAMES[encoder](rest)
        return None if name is None else f"encoder.{name}"
    # Each linear layer but the last is followed by a ReLU.
    index, part = rest.removeprefix("imnet.layers.").split(".")
    return f"{SAMPLERS.get(stage, stage)}.layers.{int(index) // 2}.{part}"


def own_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of our PCSR from the upstream configuration; ValueError naming what is missing."""
    try:
        theirs = config["encoder_spec"].get("args", {})
        encoder = config["encoder_spec"]["name"]
        hidden = [
            config[f"{part}_spec"]["args"]["imnet_spec"]["args"]["hidden_list"]
            for part in ("light_sampler", "heavy_sampler", "classifier")
        ]
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"the upstream PCSR's configuration lacks {error}; give encoder_spec, the samplers'"
            " and the classifier's"
        ) from error
    if encoder not in ENCODERS:
        raise ValueError(f"PCSR has no encoder {encoder!r}; known are {', '.join(ENCODERS)}")
    arguments = {ours: theirs[name] for name, ours in ARGUMENTS[encoder].items() if name in theirs}
    if encoder == "carn":
        arguments["norm"] = True
    return {
        "encoder": encoder,
        "encoder_arguments": arguments,
        "samplers": hidden[:2],
        "classifier": hidden[2],
    }


def from_upstream(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any], mean: Mean
) -> Checkpoint:
    """Upstream weights, with the upstream constructor arguments, as our checkpoint.

    The upstream networks have a light and a heavy sampler and were trained at scale 4. ValueError:
    naming key and shapes, or the argument, that do not fit.
    """
    arguments = own_arguments(config)
    renamed = rename_weights(
        Pcsr(**arguments),
        tensors,
        lambda theirs: own_name(theirs, arguments["encoder"]),
        "the upstream PCSR",
    )
    return Checkpoint(ModelSpec("pcsr", 4, arguments, mean), renamed)
