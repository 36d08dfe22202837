"""RDN as the authors' PyTorch code publishes it, for values 0..1.

AnySR's encoder has the same names.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tierscale.models.backbones.rdn import Rdn
from tierscale.models.contract.checkpoints import Checkpoint, ModelSpec
from tierscale.models.convert.mapping import (
    Mean,
    constructor_arguments,
    rename_weights,
    some_names,
)

ORIGIN = "the upstream RDN"
FIRST = "RDBs.0.convs.0.conv.0.weight"
ENTRIES = {"SFENet1": "first", "SFENet2": "second"}
FUSION = {"0": "fuse", "1": "join"}
# Layers of a block behind its dense ones; fc1 and fc2 are AnySR's.
BLOCK = {"LFF": "fuse", "fc1": "gate.squeeze", "fc2": "gate.excite"}


def own_name(theirs: str) -> str | None:
    """Our name for an upstream weight, but for the enlarging part; None for a mean."""
    stage, *rest = theirs.split(".")
    if stage in ("sub_mean", "add_mean"):
        return None
    if stage.startswith("SFENet"):
        return f"{ENTRIES[stage]}.{rest[0]}"
    if stage == "GFF":
        return f"{FUSION[rest[0]]}.{rest[1]}"
    if stage == "RDBs" and rest[1] == "convs":  # RDBs.3.convs.5.conv.0.weight
        return f"blocks.{rest[0]}.layers.{rest[2]}.{rest[5]}"
    if stage == "RDBs":  # RDBs.3.LFF.weight
        return f"blocks.{rest[0]}.{BLOCK[rest[1]]}.{rest[2]}"
    return theirs


def sizes(tensors: Mapping[str, Tensor], origin: str) -> dict[str, int]:
    """Constructor arguments that the shapes tell; ValueError where it is no RDN."""
    if FIRST not in tensors:
        raise ValueError(f"{origin} needs {FIRST!r} but only has {some_names(tensors)}")
    names = [name.split(".") for name in tensors if name.startswith("RDBs.")]
    growth, features = tensors[FIRST].shape[:2]
    return {
        "features": features,
        "growth": growth,
        "blocks": 1 + max(int(name[1]) for name in names),
        "layers": 1 + max(int(name[3]) for name in names if name[2] == "convs"),
    }


def from_upstream(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any], mean: Mean
) -> Checkpoint:
    """Upstream weights for values 0..1 as our checkpoint.

    config: the scale; the shapes tell the other arguments. ValueError naming a key that does not
    fit.
    """
    arguments = sizes(tensors, ORIGIN)
    scale = int(constructor_arguments(config).get("scale", 4))
    # Between the convolutions of the enlarging part are shuffles.
    tail = {"0": "grow.0", "2": "grow.1" if scale == 4 else "exit", "4": "exit"}

    def with_tail(theirs: str) -> str | None:
        stage, index, *rest = theirs.split(".")
        return f"tail.{tail[index]}.{rest[0]}" if stage == "UPNet" else own_name(theirs)

    return Checkpoint(
        ModelSpec("rdn", scale, arguments, mean),
        rename_weights(Rdn(scale, **arguments), tensors, with_tail, ORIGIN),
    )
