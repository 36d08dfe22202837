"""ClassSR as its authors publish it: a classifier and branches from light to heavy."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tierscale.models.adaptive.classsr.network import Classifier
from tierscale.models.contract.checkpoints import Checkpoint, ModelSpec
from tierscale.models.convert.backbones import carn, fsrcnn, srresnet
from tierscale.models.convert.mapping import Mean, rename_weights

ORIGIN = "the upstream ClassSR"
# What a branch's first layer is called upstream -> what converts the branch.
BRANCHES = {
    "entry": carn.from_upstream,
    "head_conv": fsrcnn.from_upstream,
    "conv_first": srresnet.from_upstream,
}

Parts = dict[str, dict[str, Tensor]]


def own_name(theirs: str) -> str:
    """Our name for an upstream weight of the classifier."""
    stage, _, rest = theirs.removeprefix("classifier.").partition(".")
    if stage == "lastOut":
        return f"tell.{rest}"
    index, _, kind = rest.partition(".")
    return f"look.{kind}" if index == "0" else f"think.{int(index) // 2 - 1}.{kind}"


def from_upstream(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any], mean: Mean
) -> Checkpoint:
    """Upstream weights (classifier, net1, net2 and so on, from light to heavy) as our checkpoint.

    The shapes tell the arguments. A mean that the branches subtract themselves is used in place of
    `mean`. ValueError naming a key that does not fit.
    """
    parts = split_parts(tensors)
    branches = convert_branches(parts, mean)
    classifier = rename_weights(Classifier(len(branches)), parts["classifier"], own_name, ORIGIN)
    weights = {f"classifier.{name}": tensor for name, tensor in classifier.items()}
    for index, branch in enumerate(branches):
        weights |= {f"branches.{index}.{name}": t for name, t in branch.tensors.items()}
    first = branches[0].spec
    arguments = {
        "branch": first.network,
        "branches": [branch.spec.arguments for branch in branches],
    }
    return Checkpoint(
        ModelSpec("classsr", first.scale, arguments, first.mean, first.residual), weights
    )


def split_parts(tensors: Mapping[str, Tensor]) -> Parts:
    """The weights by part: "classifier", "net1" and so on; ValueError where one is missing."""
    parts: Parts = {}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        parts.setdefault(part, {})[rest] = tensor
    nets = [f"net{index}" for index in range(1, len(parts))]
    if "classifier" not in parts or len(nets) < 2 or any(net not in parts for net in nets):
        raise ValueError(
            f"{ORIGIN} holds 'classifier', 'net1', 'net2' and so on, but this file"
            f" {', '.join(parts)}"
        )
    return parts


def convert_branches(parts: Parts, mean: Mean) -> list[Checkpoint]:
    """Our checkpoint of each branch; ValueError unless all are of one known network."""
    nets = [f"net{index}" for index in range(1, len(parts))]
    converters = {
        BRANCHES[stage]
        for net in nets
        for stage in {name.partition(".")[0] for name in parts[net]} & BRANCHES.keys()
    }
    if len(converters) != 1:
        raise ValueError(
            f"{ORIGIN} has branches that are all CARN, FSRCNN or SRResNet, but 'net1' of this file"
            f" holds {', '.join(parts['net1'])}"
        )
    converter = converters.pop()
    if "sub_mean.bias" in parts["net1"]:
        red, green, blue = (-parts["net1"]["sub_mean.bias"]).tolist()
        mean = (red, green, blue)
    return [converter(parts[net], {}, mean) for net in nets]
