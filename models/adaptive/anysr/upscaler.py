"""AnySR (Fu, Zhong and others 2024, "AnySR: Realizing Image Super-Resolution as Any-Scale,
Any-Resource", arXiv 2407.04241).

An encoder of which only the first hidden channels are computed, the fewer the smaller the scale or
the effort, and a head that makes pixels at any scale.
"""

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from tierscale.models.adaptive.anysr import srno
from tierscale.models.adaptive.anysr.liif import Liif
from tierscale.models.adaptive.anysr.slim_encoders import SlimEdsr, SlimRdn
from tierscale.models.adaptive.anysr.srno import Srno
from tierscale.models.backbones import rdn
from tierscale.models.contract.checkpoints import Blueprint, Checkpoint, adopt, fill, told
from tierscale.models.contract.efforts import Efforts, check_effort
from tierscale.models.contract.upscaler import LARGE, Placement, Upscaled, hr_length
from tierscale.models.runtime.nearest import Axis, axes
from tierscale.models.runtime.resample import multiply_adds, resample

ENCODERS: dict[str, type[SlimEdsr | SlimRdn]] = {"edsr": SlimEdsr, "rdn": SlimRdn}
HEADS: dict[str, type[Srno | Liif]] = {"srno": Srno, "liif": Liif}
# Shares of the hidden channels at scales up to 1.7, 2.5 and 3.2; all of them beyond.
WIDTHS = {"edsr": (0.5, 0.7, 0.9), "rdn": (0.7, 0.8, 0.9)}
# The largest scale that is trained; beyond it the published demonstration tells the head this one.
TRAINED = 4
# The least scale that is trained.
LEAST = Fraction(11, 10)


def width_by_scale(encoder: str, scale: Fraction) -> float:
    """The paper's share of hidden channels (section 3.2): only scales of one decimal are known, 1.1
    to 3.2; others run in full.
    """
    tenths = 10 * scale
    if tenths.denominator != 1 or not 11 <= tenths <= 32:
        return 1.0
    return WIDTHS[encoder][0 if tenths <= 17 else 1 if tenths <= 25 else 2]


class AnySr(nn.Module):
    """The network (section 3) in a form that can be trained.

    encoder: of ENCODERS; head: of HEADS; the arguments are those of their constructors, but for the
    head's features.
    """

    def __init__(
        self,
        encoder: str = "edsr",
        encoder_arguments: Mapping[str, Any] = {},
        head: str = "srno",
        head_arguments: Mapping[str, Any] = {},
    ) -> None:
        super().__init__()
        for part, asked, known in (("encoder", encoder, ENCODERS), ("head", head, HEADS)):
            if asked not in known:
                raise ValueError(f"AnySR has no {part} {asked!r}; known are {', '.join(known)}")
        self.kind = encoder
        self.encoder = ENCODERS[encoder](**encoder_arguments)
        self.head = HEADS[head](self.encoder.features, **head_arguments)

    def forward(
        self,
        x: Tensor,
        rows: Axis,
        columns: Axis,
        scale: Fraction,
        width: float = 1.0,
        stretch: float = 1.0,
    ) -> Tensor:
        """x (N, 3, h, w), values around the mean, to what is added to their bilinear enlargement,
        (N, 3, H, W).

        rows, columns: of the output (models.nearest.axes gives a window's). scale: told to the
        blocks; width: share of their hidden channels, above 0 to 1. stretch: of the cell, for
        scales beyond those that were trained.
        """
        return self.head(self.encoder(x, scale, width), rows, columns, stretch)


class AnySrUpscaler:
    """AnySR (arXiv 2407.04241, section 3) as an upscaler of any scale: windows (N, 3, h, w), 0..1,
    to Upscaled.pixels (N, 3, H, W), not clipped. Each window is an image of its own, since its
    means and attention are over all of it.

    The knob is the width, the share of hidden channels; effort is the encoder's cost at that width
    as a share of its full cost, and full effort is full width. The head's cost does not shrink:
    SRNO's at scale 4 is eleven times that of a full EDSR encoder of 16 blocks. given: "width", as
    of width_by_scale() for the paper's choice. Upscaled.choice: the width of each window.
    """

    scales: frozenset[Fraction] | None = None
    reach: int | None = None
    knob: str | None = "width"
    efforts: Efforts | None

    def __init__(self, network: AnySr, blueprint: Blueprint) -> None:
        self.kind = network.kind
        network = network.eval().requires_grad_(False)
        self.parameters = sum(parameter.numel() for parameter in network.parameters())
        self.encoder = network.encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.head = network.head
        self.mean = torch.tensor(blueprint.mean).view(3, 1, 1)
        # A width costs the same on all images, so that counting tells what must be measured for
        # other methods.
        self.ladder = tuple(share / 10 for share in range(round(10 * WIDTHS[self.kind][0]), 11))
        costs = [self.encoder.cost(LARGE**2, width) for width in self.ladder]
        self.counted = Efforts(
            "width",
            self.ladder,
            tuple(cost / costs[-1] for cost in costs),
            "",
            {"counted": "the encoder's multiply-adds"},
        )
        self.efforts = self.counted

    def to(self, device: str) -> "AnySrUpscaler":
        """Move the weights, in place."""
        self.mean = self.mean.to(device)
        for part in (self.encoder, self.head):
            part.to(device)
        return self

    def width(self, effort: float) -> float:
        """The width for an effort."""
        check_effort(effort)
        return 1.0 if effort == 1 or self.efforts is None else self.efforts.setting(effort)

    def __call__(
        self,
        windows: Tensor,
        place: Placement,
        effort: float = 1.0,
        settings: Mapping[str, float] = {},
    ) -> Upscaled:
        if windows.ndim != 4 or windows.shape[1] != 3:
            raise ValueError(
                f"windows of shape {tuple(windows.shape)} are not (N, 3, h, w); feed a grey as"
                " three equal channels"
            )
        width = settings["width"] if "width" in settings else self.width(effort)
        if not 0 < width <= 1:
            raise ValueError(
                f"a width of {width:g} is no share above 0 to 1 of the hidden channels"
            )
        pixels = resample(windows, place, "bilinear")
        height, wide = windows.shape[2:]
        for index in range(len(windows)):
            rows, columns = axes(place, index, height, wide)
            pixels[index] += self._window(
                windows[index : index + 1], rows, columns, place.scale, width
            )[0]
        queries = pixels.shape[2] * pixels.shape[3]
        residual = multiply_adds(3, height, wide, pixels.shape[2], pixels.shape[3], "bilinear")
        macs = float(
            self.encoder.cost(height * wide, width)
            + self.head.cost(height * wide, queries)
            + residual
        )
        every = torch.full((len(windows),), macs, dtype=torch.float64)
        return Upscaled(pixels, every, torch.full((len(windows),), width))

    def _window(
        self, window: Tensor, rows: Axis, columns: Axis, scale: Fraction, width: float
    ) -> Tensor:
        """What is added to the enlargement of one window (1, 3, h, w)."""
        centred = (window - self.mean).contiguous(memory_format=torch.channels_last)
        run = self.encoder.run if window.device.type == "cpu" else self.encoder
        return self.head.run(
            run(centred, scale, width), rows, columns, max(1.0, float(scale) / TRAINED)
        )

    def cost(self, scale: Fraction, effort: float = 1.0) -> float:
        """Multiply-adds for each input pixel of a large window."""
        side = hr_length(LARGE, scale)
        head = self.head.cost(LARGE**2, side**2) + multiply_adds(
            3, LARGE, LARGE, side, side, "bilinear"
        )
        return (self.encoder.cost(LARGE**2, self.width(effort)) + head) / LARGE**2

    def memory(self, scale: Fraction) -> float:
        """Bytes for each input pixel of a window: the encoder's maps, the head's queries, the
        enlargement.
        """
        maps = 4 * self.encoder.features * (4 if self.kind == "edsr" else 10)
        return maps + self.head.memory(scale) + 36 * float(scale) ** 2


def build(checkpoint: Checkpoint, origin: str) -> AnySrUpscaler:
    """The upscaler of a checkpoint; `origin` names it in errors."""
    blueprint = checkpoint.blueprint
    try:
        network = AnySr(**blueprint.arguments)
    except TypeError as error:
        raise ValueError(
            f"{origin} asks for an AnySR of {blueprint.arguments}, which cannot be built ({error})"
        ) from error
    fill(network, checkpoint.tensors, origin)
    return AnySrUpscaler(network, blueprint)


def edsr_name(theirs: str, blocks: int) -> str | None:
    """Our name for a weight of the published EDSR encoder with `blocks` blocks; None for a mean."""
    stage, *rest = theirs.split(".")
    if stage in ("sub_mean", "add_mean"):
        return None
    if stage == "head":
        return f"entry.{rest[1]}"
    if rest[0] == str(blocks):
        return f"join.{rest[1]}"
    layer = {"conv1": "first", "conv2": "second", "fc1": "gate.squeeze", "fc2": "gate.excite"}[
        rest[1]
    ]
    return f"blocks.{rest[0]}.{layer}.{rest[2]}"


def published_encoder(
    tensors: Mapping[str, Tensor], origin: str
) -> tuple[str, dict[str, int], dict[str, Tensor]]:
    """Kind, arguments and weights of a published encoder for colours twice as large as 0..1; the
    shapes tell the arguments.
    """
    flat = {
        name: t[:, :, 0, 0] if ".fc" in name and t.ndim == 4 else t for name, t in tensors.items()
    }
    if "head.0.weight" in flat:
        blocks = max(
            (int(name.split(".")[1]) for name in flat if name.startswith("body.")), default=0
        )
        arguments = {"blocks": blocks, "features": flat["head.0.weight"].shape[0]}
        made = adopt(SlimEdsr(**arguments), flat, lambda name: edsr_name(name, blocks), origin)
        return "edsr", arguments, {**made, "entry.weight": 2 * made["entry.weight"]}
    if "SFENet1.weight" in flat:
        arguments = rdn.sizes(flat, origin)
        del arguments["layers"]
        made = adopt(SlimRdn(**arguments), flat, rdn.own_name, origin)
        return "rdn", arguments, {**made, "first.weight": 2 * made["first.weight"]}
    raise ValueError(
        f"{origin} needs 'encoder.head.0.weight' or 'encoder.SFENet1.weight', and has neither"
    )


def published(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any], mean: tuple[float, float, float]
) -> Checkpoint:
    """Published weights, with an EDSR or RDN encoder and the SRNO head, as our checkpoint.

    config: of the head, {"width", "blocks"}, where blocks are the heads of its attention; the
    shapes tell what is missing. Input and output of the published network are 2 * value - 1, and
    the encoder takes a mean of its own away: all that becomes part of the mean, the first layer and
    the last. ValueError naming a key that does not fit.
    """
    origin = "the published AnySR"
    part = {
        name.removeprefix("encoder."): tensor
        for name, tensor in tensors.items()
        if name.startswith("encoder.")
    }
    kind, encoder_arguments, encoder = published_encoder(part, origin)
    head_arguments, head = srno.published(
        tensors, told(config), encoder_arguments["features"], origin
    )
    made = {f"encoder.{name}": tensor for name, tensor in encoder.items()} | {
        f"head.{name}": tensor for name, tensor in head.items()
    }
    arguments = {
        "encoder": kind,
        "encoder_arguments": encoder_arguments,
        "head": "srno",
        "head_arguments": head_arguments,
    }
    red, green, blue = (
        (0.5 - part["sub_mean.bias"] / 2).tolist() if "sub_mean.bias" in part else (0.5,) * 3
    )
    return Checkpoint(Blueprint("anysr", 0, arguments, (red, green, blue), "bilinear"), made)
