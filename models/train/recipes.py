"""What each zoo name is built from and how it is trained unless the options say otherwise."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from tierscale.models.adaptive.adadsr.network import Adadsr
from tierscale.models.adaptive.anysr.network import AnySr
from tierscale.models.adaptive.ape.network import Ape
from tierscale.models.adaptive.classsr.network import OURS, ClassSr
from tierscale.models.adaptive.pcsr.network import Pcsr
from tierscale.models.backbones.carn import Carn
from tierscale.models.backbones.edsr import Edsr
from tierscale.models.backbones.fsrcnn import Fsrcnn
from tierscale.models.backbones.rcan import Rcan
from tierscale.models.backbones.srresnet import Srresnet
from tierscale.models.backbones.vdsr import Vdsr
from tierscale.models.contract.checkpoints import ModelSpec
from tierscale.models.train.methods import adadsr, anysr, ape, classsr, pcsr
from tierscale.models.train.schedule import Schedule
from tierscale.models.train.tasks import LOSSES, Task

MEAN = (0.4488, 0.4371, 0.4040)  # of DIV2K, as upstream CARN and EDSR use it
# Kind -> what builds the network of a specification: plain ones are made for a scale, PCSR for any.
NETWORKS: dict[str, Callable[[ModelSpec], nn.Module]] = {
    "fsrcnn": lambda spec: Fsrcnn(scale=spec.scale, **spec.arguments),
    "carn": lambda spec: Carn(scale=spec.scale, **spec.arguments),
    "edsr": lambda spec: Edsr(scale=spec.scale, **spec.arguments),
    "srresnet": lambda spec: Srresnet(scale=spec.scale, **spec.arguments),
    "rcan": lambda spec: Rcan(scale=spec.scale, **spec.arguments),
    "vdsr": lambda spec: Vdsr(scale=spec.scale, **spec.arguments),
    "pcsr": lambda spec: Pcsr(**spec.arguments),
    "ape": lambda spec: Ape(scale=spec.scale, **spec.arguments),
    "adadsr": lambda spec: Adadsr(scale=spec.scale, **spec.arguments),
    "anysr": lambda spec: AnySr(**spec.arguments),
    "classsr": lambda spec: ClassSr(scale=spec.scale, **spec.arguments),
}
PCSR_CARN = {
    "encoder": "carn",
    "encoder_arguments": {"features": 52, "groups": 4},
    "samplers": [[20, 20, 20], [74, 74, 74, 74]],
    "classifier": [10, 10],
}
PCSR_FSRCNN = {
    "encoder": "fsrcnn",
    "encoder_arguments": {"features": 48},
    "samplers": [[10] * 3, [58] * 4],
    "classifier": [],
}
CLASSSR_CARN = {"branch": "carn", "branches": list(OURS)}
# The paper's attention head works on 256 channels at every output pixel; this one costs a hundredth
# of it.
ANYSR_EDSR = {
    "encoder": "edsr",
    "encoder_arguments": {"blocks": 8, "features": 32},
    "head": "liif",
    "head_arguments": {"hidden": [64] * 3},
}
# What two CPU cores train in an hour or two.
SMALL_EDSR = {"blocks": 8, "features": 32}
# Of methods that leave early: entry and end take a third of the work of eight blocks, so that half
# of it would leave but three of them.
DEEP_EDSR = {"blocks": 16, "features": 32}
# Name, but for the scale -> specification. Widths of the methods are those of their papers, but for
# ClassSR's (models/adaptive/classsr/network.py).
MODEL_SPECS = {
    "fsrcnn": ModelSpec(
        "fsrcnn", 4, {"features": 56, "narrow": 12, "mapping": 4}, MEAN, "bilinear"
    ),
    "carn": ModelSpec("carn", 4, {"features": 64, "groups": 4, "norm": False}, MEAN, "bilinear"),
    "edsr": ModelSpec("edsr", 4, SMALL_EDSR, MEAN, "bilinear"),
    "edsr16": ModelSpec("edsr", 4, DEEP_EDSR, MEAN, "bilinear"),
    "srresnet": ModelSpec("srresnet", 4, {"features": 64, "blocks": 16}, MEAN, "bilinear"),
    "rcan": ModelSpec(
        "rcan", 4, {"groups": 4, "blocks": 4, "features": 32, "reduction": 8}, MEAN, "bilinear"
    ),
    # Its own bicubic enlargement is the residual.
    "vdsr": ModelSpec("vdsr", 4, {"layers": 20, "features": 64}, MEAN, None),
    "pcsr-carn": ModelSpec("pcsr", 4, PCSR_CARN, MEAN, "bilinear"),
    "pcsr-fsrcnn": ModelSpec("pcsr", 4, PCSR_FSRCNN, MEAN, "bilinear"),
    "ape-edsr": ModelSpec(
        "ape", 4, {"backbone": "edsr", "every": 4, "cell": 16, **DEEP_EDSR}, MEAN, "bilinear"
    ),
    "adaedsr": ModelSpec(
        "adadsr", 4, {"backbone": "edsr", "cell": 16, **DEEP_EDSR}, MEAN, "bilinear"
    ),
    "classsr-carn": ModelSpec("classsr", 4, CLASSSR_CARN, MEAN, "bilinear"),
    "anysr-edsr": ModelSpec("anysr", 0, ANYSR_EDSR, MEAN, "bilinear"),
}
# What tells the stages of training of a specification, in their order; the first is the default.
Stages = Mapping[str, Callable[[ModelSpec], dict[str, Task]]]

# Kind -> its stages. Plain networks have one.
STAGES: Stages = {
    "pcsr": lambda spec: pcsr.stages(len(spec.arguments["samplers"])),
    "ape": lambda spec: ape.STAGES,
    "adadsr": lambda spec: adadsr.STAGES,
    "anysr": lambda spec: anysr.STAGES,
    "classsr": lambda spec: classsr.stages(len(spec.arguments["branches"])),
}
# Stages that move only a part of the network and yet need no other stage before them.
FIRST = frozenset({"heaviest"})
SCHEDULES = {
    "fsrcnn": Schedule(rate=2e-3, clip=0.5),
    "carn": Schedule(rate=1e-3, clip=0.5),
    "edsr": Schedule(rate=1e-3, clip=0.5),
    "edsr16": Schedule(rate=1e-3, clip=0.5),
    "srresnet": Schedule(rate=5e-4, clip=0.5),
    "rcan": Schedule(rate=5e-4, clip=0.5),
    "vdsr": Schedule(rate=5e-4, clip=0.5),
    "pcsr-carn": Schedule(rate=1e-3, clip=0.5),
    "pcsr-fsrcnn": Schedule(rate=1e-3, clip=0.5),
    "ape-edsr": Schedule(rate=5e-4, clip=0.5),
    "classsr-carn": Schedule(rate=5e-4, clip=0.5),
    "anysr-edsr": Schedule(rate=5e-4, clip=0.5),
    "adaedsr": Schedule(rate=5e-4, clip=0.5),
}


def known() -> str:
    """The names that recipe() takes, with commas between them."""
    return ", ".join(
        f"{kind}-x{{2,3,4}}" if spec.scale else kind for kind, spec in MODEL_SPECS.items()
    )


def recipe(name: str) -> tuple[ModelSpec, Schedule]:
    """Specification and schedule (without an end) of a name such as carn-x4.

    ValueError listing what there is.
    """
    kind, _, factor = name.partition("-x")
    scales = ("",) if kind in MODEL_SPECS and not MODEL_SPECS[kind].scale else ("2", "3", "4")
    if kind not in MODEL_SPECS or factor not in scales:
        raise ValueError(f"there is no recipe for {name!r}; known are {known()}")
    return replace(MODEL_SPECS[kind], scale=int(factor or 0)), SCHEDULES[kind]


def task(
    spec: ModelSpec, stage: str | None, loss: str, stages: Stages = STAGES
) -> tuple[str, Task]:
    """A stage of training, the first one when none is named, and what it does.

    loss: of plain networks, which the others do not take. ValueError listing the stages, or naming
    the loss.
    """
    if spec.network in stages and loss != "l1":
        raise ValueError(
            f"{spec.network} is trained by losses of its own, not by {loss!r}; leave --loss out"
        )
    tasks = stages.get(spec.network, lambda spec: {"whole": Task(LOSSES[loss])})(spec)
    name = stage if stage is not None else next(iter(tasks))
    if name not in tasks:
        raise ValueError(
            f"{spec.network} has no stage {name!r} of training; its stages are {', '.join(tasks)}"
        )
    return name, tasks[name]


def build(spec: ModelSpec, seed: int) -> nn.Module:
    """A network of the specification with first weights that follow from `seed`."""
    torch.manual_seed(seed)
    return NETWORKS[spec.network](spec)


def warm_start(
    network: nn.Module, tensors: dict[str, Tensor], part: str | None = None
) -> list[str]:
    """Take over the weights whose name and shape fit, in place; the names that did not fit.

    part: of the network that the tensors are for, such as "branches.2"; None: all of it, or the
    network inside a method. Residual blocks that a deeper network has beyond them begin by adding
    nothing, so that it starts as good as the other was.
    """
    own = network.state_dict()
    prefixes = ("", "network.", "encoder.") if part is None else (f"{part}.",)
    fitting = {}
    for name, tensor in tensors.items():
        for inside in (prefix + name for prefix in prefixes):
            if inside in own and own[inside].shape == tensor.shape:
                fitting[inside] = tensor
                break
    fresh = sorted(own.keys() - fitting.keys())
    silent = {
        name: torch.zeros_like(own[name])
        for name in fresh
        if re.search(r"blocks\.\d+\.second\.(weight|bias)$", name)
    }
    network.load_state_dict({**own, **fitting, **silent})
    return fresh
