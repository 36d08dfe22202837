"""AdaDSR (Liu, Zhang, Wang, Yang, Zuo and Cao 2020, "Deep Adaptive Inference Networks for Single
Image Super-Resolution", arXiv 2004.03915): each place of the picture gets as many residual blocks
as a small predictor thinks it needs.
"""

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tierscale.models.adaptive.adadsr.predictor import Predictor
from tierscale.models.adaptive.ape.sparse_exits import Lattice, cell_means
from tierscale.models.adaptive.gated import Block, Gated, cost
from tierscale.models.backbones.edsr import Edsr
from tierscale.models.backbones.official import centre, numbered, one_scale, unit
from tierscale.models.backbones.rcan import Rcan
from tierscale.models.contract.checkpoints import Blueprint, Checkpoint, adopt, fill, told
from tierscale.models.contract.efforts import Efforts, check_effort
from tierscale.models.contract.upscaler import LARGE, Placement, Upscaled
from tierscale.models.runtime.plain import PlainUpscaler, check_windows
from tierscale.models.runtime.stages import Staged

BACKBONES: dict[str, type[Staged]] = {"edsr": Edsr, "rcan": Rcan}


class Adadsr(nn.Module):
    """A network whose blocks count only where the predicted depth goes beyond them (section 3.1).

    backbone: "edsr" (one depth map) or "rcan" (one for each group). arguments: of its constructor,
    but for the scale. predictor_layers, predictor_width, budget_place: of the predictor; a
    budget_place of None is behind the last layer. cell: input pixels a side of cells of a grid over
    the whole image that share their mean depth, of EDSR only; None: each place has its own, as in
    the paper.
    """

    def __init__(
        self,
        scale: int = 4,
        backbone: str = "edsr",
        predictor_layers: int = 5,
        predictor_width: int = 16,
        budget_place: int | None = None,
        cell: int | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__()
        if backbone not in BACKBONES:
            raise ValueError(f"AdaDSR is made on {', '.join(BACKBONES)}, not on {backbone!r}")
        if cell is not None and (backbone != "edsr" or cell < 1):
            raise ValueError(
                f"cells of {cell} pixels cannot share a depth in {backbone}; give 1 or more with"
                " edsr, or None"
            )
        self.network = BACKBONES[backbone](scale=scale, **arguments)
        self.scale, self.cell = scale, cell
        self.groups: list[list[Block]]
        if isinstance(self.network, Rcan):
            self.groups = [list(group.blocks) for group in self.network.groups]
        else:
            assert isinstance(self.network, Edsr)
            self.groups = [list(self.network.blocks)]
        self.depth = len(self.groups[0])
        place = predictor_layers if budget_place is None else budget_place
        features = self.groups[0][0].first.in_channels
        self.predictor = Predictor(
            features, len(self.groups), predictor_layers, predictor_width, place
        )

    def forward(self, x: Tensor, budget: Tensor) -> tuple[Tensor, Tensor]:
        """Enlarge x (N, 3, h, w), values around the mean, with budgets (N,) in blocks: image and
        depths (N, maps, h, w), at least 0.

        Every block is computed everywhere, which gives what skipping gives. The form that is
        trained.
        """
        entered, body = self.network.enter(x)
        depths = self.predictor(entered, budget.view(-1, 1, 1, 1))
        if self.cell is not None:
            depths = F.interpolate(cell_means(depths, self.cell), scale_factor=self.cell)[
                :, :, : x.shape[2], : x.shape[3]
            ]
        return self.network.finish(entered, self.body(body, depths)), depths

    def body(self, x: Tensor, depths: Tensor) -> Tensor:
        """Features behind all blocks, block i times min(max(depth - i, 0), 1) at each place
        (equation 4).
        """
        for index, blocks in enumerate(self.groups):
            inner, depth = x, depths[:, index : index + 1]
            for number, block in enumerate(blocks):
                inner = block.gated(inner, (depth - number).clamp(0, 1))
            x = (
                x + list(self.network.groups)[index].join(inner)
                if isinstance(self.network, Rcan)
                else inner
            )
        return x


class AdadsrUpscaler:
    """AdaDSR (equation 4) as an upscaler: a block is computed where the depth goes beyond it, and
    nowhere else but in the rest of the same cells. Windows (N, 3, h, w), 0..1, to Upscaled.pixels
    (N, 3, s * h, s * w), not clipped.

    The knob is the budget of depth, in blocks, which the predictor is given; the depths follow it
    but do not obey it, and a budget above the number of blocks deepens them further. At effort 1
    every block runs everywhere and the predictor rests. given: "depth", the budget.
    Upscaled.choice: the depths (N, maps, h, w), float32, in blocks, not bounded by their number; at
    effort 1 their number everywhere.
    """

    knob: str | None = "depth"
    # The harder half of data/train costs what Set14 and Urban100 do: 0.52 and 0.77 at depths of 4
    # and 8, and 0.51 and 0.79 on Set14.
    caution = 1.0
    efforts: Efforts | None = None

    def __init__(self, method: Adadsr, blueprint: Blueprint, origin: str = "this network") -> None:
        self.plain = PlainUpscaler(method.network, blueprint)
        self.method, self.origin, self.blueprint = (
            method.eval().requires_grad_(False),
            origin,
            blueprint,
        )
        self.method.predictor.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.scales: frozenset[Fraction] | None = self.plain.scales
        self.reach: int | None = None
        if self.plain.reach is not None:
            # A depth reaches as far as the entry, the predictor and its cell, and counts in all
            # blocks but the first one's convolutions.
            self.reach = max(
                self.plain.reach,
                self.plain.reach - 2 + len(method.predictor.layers) + (method.cell or 1) - 1,
            )
        self.parameters = sum(parameter.numel() for parameter in method.parameters())
        # Settings of the knob to be measured, from the least computation to the most.
        self.ladder = tuple(
            method.depth * share
            for share in (
                0.05,
                0.1,
                0.2,
                0.3,
                0.4,
                0.5,
                0.6,
                0.7,
                0.8,
                0.9,
                1.0,
                1.25,
                1.5,
                2.0,
                4.0,
            )
        )

    def to(self, device: str) -> "AdadsrUpscaler":
        """Move the weights, in place."""
        self.plain.to(device)
        self.method.to(device)
        return self

    def __call__(
        self,
        windows: Tensor,
        place: Placement,
        effort: float = 1.0,
        settings: Mapping[str, float] = {},
    ) -> Upscaled:
        check_windows(windows, place, self.method.scale)
        budget = self.budget(effort, settings)
        maps, (height, width) = len(self.method.groups), windows.shape[2:]
        if budget is None:
            made = self.plain(windows, place)
            return Upscaled(
                made.pixels,
                made.macs,
                windows.new_full((len(windows), maps, height, width), self.method.depth),
            )
        centred = (windows - self.plain.mean).contiguous(memory_format=torch.channels_last)
        # Each window for itself: its result does not depend on its batch, not even in the last bit.
        parts = [
            self._one(window, origin, budget)
            for window, origin in zip(centred.split(1), place.origins, strict=True)
        ]
        pixels, depths, macs = (list(column) for column in zip(*parts, strict=True))
        result = self.plain.complete(torch.cat(pixels), windows)
        return Upscaled(
            result,
            torch.tensor(macs, dtype=torch.float64) + self._always(height, width),
            torch.cat(depths),
        )

    def budget(self, effort: float, settings: Mapping[str, float]) -> float | None:
        """What the predictor is told; None: it is not asked. ValueError: an unknown name, less than
        0, or not measured.
        """
        if settings.keys() - {"depth"}:
            raise ValueError(
                f"AdaDSR is settings {', '.join(sorted(settings.keys() - {'depth'}))}, but knows only"
                " depth"
            )
        check_effort(effort)
        if "depth" in settings:
            if not settings["depth"] >= 0:
                raise ValueError(
                    f"a depth of {settings['depth']:g} blocks is no budget; give 0 or more, such as"
                    f" {self.method.depth}"
                )
            return float(settings["depth"])
        if effort == 1:
            return None
        if self.efforts is None:
            raise ValueError(
                f"what {self.origin} costs at an effort of {effort:g} was not measured; run"
                " tierscale models calibrate NAME"
            )
        return self.efforts.setting(effort)

    def _one(
        self, window: Tensor, origin: tuple[int, int], budget: float
    ) -> tuple[Tensor, Tensor, int]:
        """What the network makes of a window (1, 3, h, w), its depths, and the multiply-adds of its
        blocks.
        """
        network = self.method.network
        kept, _ = network.enter(window)
        depths = self.method.predictor(kept, kept.new_tensor(budget))
        if self.method.cell is not None:
            lattice = Lattice(origin, window.shape[2], window.shape[3], self.method.cell)
            depths = lattice.spread(lattice.means(depths)[:, 0])[None, None]
        body, macs = kept, 0
        for index, blocks in enumerate(self.method.groups):
            inner = Gated(body, origin)
            macs += inner.run(blocks, depths[:, index : index + 1])
            body = (
                body + list(network.groups)[index].join(inner.features)
                if isinstance(network, Rcan)
                else inner.features
            )
        return network.finish_by_rows(kept, body), depths, macs

    def _always(self, height: int, width: int, streamed: bool = True) -> int:
        """Multiply-adds of all but the blocks, for a window of `height` by `width`; streamed: the
        network's end is composed.
        """
        blocks = sum(
            cost(block, 2 * height * width) for blocks in self.method.groups for block in blocks
        )
        return (
            self.plain.count(height, width, streamed)
            - blocks
            + height * width * self.method.predictor.cost
        )

    def published_cost(self, depths: Tensor) -> int:
        """What the published counter tells for a window of these depths (maps, h, w):
        multiply-adds, one operation each.

        It charges both convolutions of a block where the depth goes beyond it, while the first is
        needed within a pixel of there: too little. It has no residual kernel, and charges the
        network's end convolution by convolution. For RCAN it also charges an upsampler of 256
        channels whatever their number: we do not.
        """
        height, width = depths.shape[1:]
        residual = (
            0 if self.plain.weight is None else 3 * self.plain.weight.numel() * height * width
        )
        places = [
            (block, 2 * int((depth > number).sum()))
            for depth, blocks in zip(depths, self.method.groups, strict=True)
            for number, block in enumerate(blocks)
        ]
        return (
            self._always(height, width, streamed=False)
            - residual
            + sum(cost(*place) for place in places)
        )

    def cost(self, scale: Fraction, effort: float = 1.0) -> float:
        """Multiply-adds for each input pixel of a large window; below full effort the mean over the
        images it was measured on.
        """
        full = self.plain.count(LARGE, LARGE) / LARGE**2
        return full if effort == 1 or self.efforts is None else full * self.efforts.share(effort)

    def memory(self, scale: Fraction) -> float:
        """Bytes for each input pixel of a window: beside those of the plain network, four maps of
        features and the cells' indices.
        """
        return self.plain.memory(scale) + 16 * self.plain.network.features + 64


def build(checkpoint: Checkpoint, origin: str) -> AdadsrUpscaler:
    """The upscaler of a checkpoint; `origin` names it in errors."""
    blueprint = checkpoint.blueprint
    try:
        method = Adadsr(scale=blueprint.scale, **blueprint.arguments)
    except TypeError as error:
        raise ValueError(
            f"{origin} asks for an AdaDSR of {blueprint.arguments}, which cannot be built ({error})"
        ) from error
    fill(method, checkpoint.tensors, origin)
    return AdadsrUpscaler(method, blueprint, origin)


# Settings of the published code that change what is computed -> the only values that we convert.
KNOWN = {
    "adapter_bound": None,
    "side_ca": False,
    "multi_adapter": False,
    "block_mode": "CRC",
    "with_depth": True,
}
LAYERS = {
    "layer0": "first",
    "layer2": "second",
    "cuca.conv_du.0": "attention.squeeze",
    "cuca.conv_du.2": "attention.excite",
}


def own_name(theirs: str, growing: list[str]) -> str | None:
    """Our name for a weight of the published AdaEDSR or AdaRCAN; None for the layers that shift by
    the mean. growing: numbered("up.").
    """
    layer, _, part = theirs.rpartition(".")
    if layer in ("head.0", "tail.1"):
        return None
    if layer in growing:
        return f"network.tail.grow.{growing.index(layer)}.{part}"
    plain = {"head.1": "entry", "body_lastconv": "join", "tail.0": "tail.exit"}
    if layer in plain:
        return f"network.{plain[layer]}.{part}"
    if found := re.fullmatch(
        r"predictor\.layer(\d+)(\.[01])?", layer
    ):  # layer2.0 is the PReLU before the convolution layer2.1
        index = int(found[1])
        return (
            f"predictor.slopes.{index - 1}.{part}"
            if found[2] == ".0"
            else f"predictor.layers.{index}.{part}"
        )
    if found := re.fullmatch(r"(?:group(\d+)\.)?block(\d+)\.(.+)", layer):
        group = "" if found[1] is None else f"groups.{found[1]}."
        return f"network.{group}blocks.{found[2]}.{LAYERS[found[3]]}.{part}"
    if found := re.fullmatch(r"group(\d+)\.block\d+", layer):  # behind the last block of a group
        return f"network.groups.{found[1]}.join.{part}"
    return theirs


def arguments(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of our Adadsr from the published ones; the shapes tell widths. ValueError naming
    what is missing or not converted.
    """
    for name, value in KNOWN.items():
        if config.get(name, value) != value:
            raise ValueError(
                f"a published AdaDSR with {name} {config[name]!r} cannot be converted, only with"
                f" {value!r}"
            )
    backbone = str(config.get("model", "adaedsr")).removeprefix("ada").partition("_")[0]
    if backbone not in BACKBONES:
        raise ValueError(
            f"AdaDSR is made on {', '.join(BACKBONES)}, not on {config.get('model')!r}"
        )
    try:
        found = {"blocks": config["n_resblocks"], "features": config["n_feats"]}
        found |= {
            "predictor_layers": config["adapter_layers"],
            "budget_place": config["adapter_pos"],
        }
        found |= {"predictor_width": tensors["predictor.layer0.weight"].shape[0]}
        if backbone == "rcan":
            squeezed = tensors["group0.block0.cuca.conv_du.0.weight"].shape[0]
            return {
                "backbone": backbone,
                **found,
                "groups": config["n_groups"],
                "reduction": config["n_feats"] // squeezed,
            }
    except KeyError as error:
        raise ValueError(
            f"a published AdaDSR lacks {error} in its configuration or its weights; it is none of"
            f" {backbone}"
        ) from error
    return {"backbone": backbone, **found, "res_scale": config.get("res_scale", 1.0)}


def published(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any], mean: tuple[float, float, float]
) -> Checkpoint:
    """Weights under the names of the published code, for values 0..255, as our checkpoint; the mean
    is in the weights.

    config: model (such as "adaedsr_model"), scale, n_resblocks, n_groups, n_feats, res_scale,
    adapter_layers and adapter_pos. ValueError naming what does not fit.
    """
    settings = told(config)
    scale, made_of = one_scale(settings.get("scale", 4)), arguments(tensors, settings)
    growing = numbered((name for name in tensors if tensors[name].ndim == 4), "up.")
    weights = adopt(
        Adadsr(scale, **made_of),
        tensors,
        lambda theirs: own_name(theirs, growing),
        "the published AdaDSR",
    )
    weights = unit(weights, "network.entry", "network.tail.exit", 255.0)
    return Checkpoint(
        Blueprint("adadsr", scale, made_of, centre(tensors, "head.0", "tail.1", 255.0)), weights
    )
