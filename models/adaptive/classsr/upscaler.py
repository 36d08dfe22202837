"""ClassSR (Kong, Zhao, Qiao and Dong 2021, "ClassSR: A General Framework to Accelerate
Super-Resolution Networks by Data Characteristic", arXiv 2103.04039): a classifier sends each small
tile through one of several branches, from light to heavy.

The tiles are the paper's, 32 input pixels with step 28, counted from the corner of the whole image.
So a place belongs to the same tiles, the same decision and the same pixels in whichever window it
comes: the reach is finite, and tiled equals whole. One decision for each window would be cheaper by
the overlaps, but its area would hang on how the image is cut, windows of several hundred pixels are
hardly ever all easy, and neighbouring windows would disagree along a visible line.
"""

import copy
import math
from collections.abc import Mapping
from fractions import Fraction
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tierscale.models.adaptive.classsr.network import CLASSIFIER, Classifier, ClassSr
from tierscale.models.backbones import carn, fsrcnn, srresnet
from tierscale.models.contract.checkpoints import Blueprint, Checkpoint, adopt, fill
from tierscale.models.contract.efforts import Efforts, check_effort
from tierscale.models.contract.upscaler import Placement, Upscaled
from tierscale.models.runtime.counting import blank, executed
from tierscale.models.runtime.patches import SIDE, STEP, Cut
from tierscale.models.runtime.plain import PlainUpscaler, check_windows

# Multiply-adds that a branch should do in one go on a CPU: few tiles, so that their maps stay in
# cache, but enough to be worth a call.
ENOUGH = 9e8
# Biases worth measuring, as powers of two: how far apart a classifier's logits lie, only measuring
# tells.
POWERS = (-6, -3, 0, 3, 6)


class ClassSrUpscaler:
    """ClassSR (arXiv 2103.04039, section 3.1) as an upscaler: a decision and one branch for each
    tile of 32 input pixels. Windows (N, 3, h, w), 0..1, to Upscaled.pixels (N, 3, s * h, s * w),
    not clipped.

    Knob "bias": added to a class's logit once for each lighter one; 0 decides as published, a large
    one sends all through the heaviest. Upscaled.choice is the class at each input pixel, (N, h, w),
    uint8; NONE where no whole tile lies in the window. Such pixels are nearer to the window's edge
    than the reach and only there as context; they are filled by a bilinear enlargement.
    """

    NONE = 255
    scales: frozenset[Fraction] | None
    reach: int | None = SIDE - 1
    knob: str | None = "bias"
    ladder = (*(-(2.0**power) for power in POWERS[::-1]), 0.0, *(2.0**power for power in POWERS))
    efforts: Efforts | None = None

    def __init__(self, network: ClassSr, blueprint: Blueprint) -> None:
        self.scale = blueprint.scale
        self.scales = frozenset({Fraction(blueprint.scale)})
        self.parameters = sum(parameter.numel() for parameter in network.parameters())
        classifier = network.classifier.eval().requires_grad_(False)
        self.classifier = classifier.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.branches = [PlainUpscaler(branch, blueprint) for branch in network.branches]

    def to(self, device: str) -> "ClassSrUpscaler":
        """Move the weights, in place."""
        self.classifier = self.classifier.to(device)
        self.branches = [branch.to(device) for branch in self.branches]
        return self

    def __call__(
        self,
        windows: Tensor,
        place: Placement,
        effort: float = 1.0,
        settings: Mapping[str, float] = {},
    ) -> Upscaled:
        check_windows(windows, place, self.scale)
        bias = settings["bias"] if "bias" in settings else self._bias(effort)
        made = [
            self._window(
                windows[i : i + 1], Placement(place.scale, place.size, (place.origins[i],)), bias
            )
            for i in range(len(windows))
        ]
        pixels, macs, choice = zip(*made, strict=True)
        return Upscaled(
            torch.cat(pixels), torch.tensor(macs, dtype=torch.float64), torch.stack(choice)
        )

    def _bias(self, effort: float) -> float:
        """The setting for an effort: at full effort every tile goes through the heaviest branch."""
        check_effort(effort)
        if effort == 1:
            return float("inf")
        if self.efforts is None:
            raise ValueError(
                f"an effort of {effort:g} needs a measured table; write it with tierscale models"
                " calibrate NAME"
            )
        return self.efforts.setting(effort)

    def cost(self, scale: Fraction, effort: float = 1.0) -> float:
        """Multiply-adds for each input pixel of a large window, overlaps and the classifier
        included.
        """
        check_effort(effort)
        share = 1.0 if effort == 1 or self.efforts is None else self.efforts.share(effort)
        return (
            share
            * (self.branches[-1].cost(scale) + self.classifier.cost(SIDE, SIDE) / SIDE**2)
            * (SIDE / STEP) ** 2
        )

    def memory(self, scale: Fraction) -> float:
        """Bytes for each input pixel of a window: the window, its tiles, the classifier's maps of
        them, the result twice.
        """
        return 12 * (2 * float(scale) ** 2 + 3) + 4 * 3 * CLASSIFIER / 16

    def published_cost(self, classes: Tensor) -> float:
        """Operations (2 for each multiply-add) that the published counter tells for tiles of these
        classes.

        It charges FSRCNN's transposed convolution at each output pixel, scale * scale times what it
        executes (95 % of the figure at scale 4 and 56 channels), and leaves the classifier out
        where the branches are CARN or SRResNet.
        """
        total = 0.0
        for index in classes.flatten().tolist():
            plain = self.branches[index]
            branch = executed(
                partial(copy.deepcopy(plain.network).to("meta"), blank(1, 3, SIDE, SIDE))
            )
            if isinstance(plain.network, fsrcnn.Fsrcnn):
                branch += plain.network.enlarge.weight.numel() * SIDE**2 * (
                    self.scale**2 - 1
                ) + self.classifier.cost(SIDE, SIDE)
            total += 2 * branch
        return total

    def decide(self, tiles: Tensor, bias: float = 0.0) -> Tensor:
        """Class of each tile (N, 3, t, t): (N,), int64."""
        logits = self.classifier(tiles)
        heavy = len(self.branches) - 1
        if math.isinf(bias):
            return torch.full((len(tiles),), heavy if bias > 0 else 0, device=tiles.device)
        return (logits + bias * torch.arange(heavy + 1, device=tiles.device)).argmax(dim=1)

    def enlarge(self, tiles: Tensor, branch: int) -> Tensor:
        """Tiles (N, 3, t, t) through one branch, all at once: (N, 3, T, T)."""
        plain = self.branches[branch]
        centred = (tiles - plain.mean).contiguous(memory_format=torch.channels_last)
        made = plain.network.stream().push(centred, last=True)
        return plain.complete(made, tiles)

    def _window(
        self, window: Tensor, place: Placement, bias: float
    ) -> tuple[Tensor, float, Tensor]:
        """One window (1, 3, h, w): its pixels, multiply-adds and classes; each branch works on its
        own tiles and no others.
        """
        cut = Cut(place, window.shape[2], window.shape[3], SIDE, STEP)
        result, macs = cut.begin(window, place)
        if not cut.count:
            return result, macs, torch.full(cut.size, self.NONE, dtype=torch.uint8)
        tiles = cut.tiles(window)
        classes = self.decide(tiles, bias).cpu()
        macs += cut.count * self.classifier.cost(*cut.sides)
        for branch, plain in enumerate(self.branches):
            own = (classes == branch).nonzero()[:, 0]
            if not len(own):
                continue
            cost = plain.count(*cut.sides)
            macs += cost * len(own)
            together = (
                max(1, int(ENOUGH / cost)) * torch.get_num_threads()
            )  # each thread takes tiles of its own
            for some in own.split(together if window.device.type == "cpu" else 256):
                for index, pixels in zip(
                    some.tolist(), self.enlarge(tiles[some], branch), strict=True
                ):
                    cut.add(result, index, pixels)
        return result, macs, cut.spread(classes.to(torch.uint8), self.NONE)


def build(checkpoint: Checkpoint, origin: str) -> ClassSrUpscaler:
    """The upscaler of a checkpoint; `origin` names it in errors."""
    blueprint = checkpoint.blueprint
    try:
        network = ClassSr(blueprint.scale, **blueprint.arguments)
    except TypeError as error:
        raise ValueError(
            f"{origin} asks for a ClassSR of {blueprint.arguments}, which cannot be built ({error})"
        ) from error
    fill(network, checkpoint.tensors, origin)
    return ClassSrUpscaler(network, blueprint)


# What a branch's first layer is called in the published code -> what reads its weights.
READERS = {"entry": carn.published, "head_conv": fsrcnn.published, "conv_first": srresnet.published}


def own_name(theirs: str) -> str:
    """Our name for a weight of the published classifier."""
    stage, _, rest = theirs.removeprefix("classifier.").partition(".")
    if stage == "lastOut":
        return f"tell.{rest}"
    index, _, kind = rest.partition(".")
    return f"look.{kind}" if index == "0" else f"think.{int(index) // 2 - 1}.{kind}"


def published(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any], mean: tuple[float, float, float]
) -> Checkpoint:
    """Published weights (classifier, net1, net2 and so on, from light to heavy) as our checkpoint;
    the shapes tell the arguments.

    ValueError naming a key that does not fit. A mean that the branches subtract themselves is used
    in place of `mean`.
    """
    origin = "the published ClassSR"
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        parts.setdefault(part, {})[rest] = tensor
    nets = [f"net{index}" for index in range(1, len(parts))]
    if "classifier" not in parts or len(nets) < 2 or any(net not in parts for net in nets):
        raise ValueError(
            f"{origin} holds 'classifier', 'net1', 'net2' and so on, but this file"
            f" {', '.join(parts)}"
        )
    readers = {
        READERS[stage]
        for net in nets
        for stage in {name.partition(".")[0] for name in parts[net]} & READERS.keys()
    }
    if len(readers) != 1:
        raise ValueError(
            f"{origin} has branches that are all CARN, FSRCNN or SRResNet, but 'net1' of this file"
            f" holds {', '.join(parts['net1'])}"
        )
    reader = readers.pop()
    red, green, blue = (
        (-parts["net1"]["sub_mean.bias"]).tolist() if "sub_mean.bias" in parts["net1"] else mean
    )
    branches = [reader(parts[net], {}, (red, green, blue)) for net in nets]
    classifier = Classifier(len(nets))
    made = {
        f"classifier.{name}": t
        for name, t in adopt(classifier, parts["classifier"], own_name, origin).items()
    }
    for index, branch in enumerate(branches):
        made.update({f"branches.{index}.{name}": tensor for name, tensor in branch.tensors.items()})
    first = branches[0].blueprint
    arguments = {
        "branch": first.network,
        "branches": [branch.blueprint.arguments for branch in branches],
    }
    return Checkpoint(
        Blueprint("classsr", first.scale, arguments, first.mean, first.residual), made
    )
