"""What each zoo name is built from and how it is trained unless the options say otherwise."""

from dataclasses import replace

import torch
from torch import Tensor

from models.carn import Carn
from models.edsr import Edsr
from models.fsrcnn import Fsrcnn
from models.stream import RowNetwork
from models.train.plain import Schedule
from models.weights import Blueprint

MEAN = (0.4488, 0.4371, 0.4040)  # of DIV2K, as the published CARN and EDSR use it
NETWORKS: dict[str, type[RowNetwork]] = {"fsrcnn": Fsrcnn, "carn": Carn, "edsr": Edsr}
BLUEPRINTS = {
    "fsrcnn": Blueprint("fsrcnn", 4, {"features": 56, "narrow": 12, "mapping": 4}, MEAN, "bilinear"),
    "carn": Blueprint("carn", 4, {"features": 64, "groups": 4, "norm": False}, MEAN, "bilinear"),
    # What two CPU cores train in an hour or two; on a GPU give 16 blocks of 64 features.
    "edsr": Blueprint("edsr", 4, {"blocks": 8, "features": 32}, MEAN, "bilinear"),
}
SCHEDULES = {
    "fsrcnn": Schedule(rate=2e-3, clip=0.5),
    "carn": Schedule(rate=1e-3, clip=0.5),
    "edsr": Schedule(rate=1e-3, clip=0.5),
}


def recipe(name: str) -> tuple[Blueprint, Schedule]:
    """Blueprint and schedule (without an end) of a name such as carn-x4; ValueError listing what there is."""
    kind, _, factor = name.partition("-x")
    if kind not in BLUEPRINTS or factor not in ("2", "3", "4"):
        known = ", ".join(f"{kind}-x{scale}" for kind in BLUEPRINTS for scale in (2, 3, 4))
        raise ValueError(f"there is no recipe for {name!r}; known are {known}")
    return replace(BLUEPRINTS[kind], scale=int(factor)), SCHEDULES[kind]


def build(blueprint: Blueprint, seed: int) -> RowNetwork:
    """A network of the blueprint with first weights that follow from `seed`."""
    torch.manual_seed(seed)
    return NETWORKS[blueprint.network](scale=blueprint.scale, **blueprint.arguments)


def warm_start(network: RowNetwork, tensors: dict[str, Tensor]) -> list[str]:
    """Take over the weights whose name and shape fit, in place; the names that did not fit."""
    own = network.state_dict()
    fitting = {name: tensor for name, tensor in tensors.items() if name in own and own[name].shape == tensor.shape}
    network.load_state_dict({**own, **fitting})
    return sorted(own.keys() - fitting.keys())
