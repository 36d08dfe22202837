"""AnySR (Fu, Zhong and others 2024, "AnySR: Realizing Image Super-Resolution as Any-Scale, Any-Resource", arXiv 2407.04241).

An encoder whose blocks can run with only the first of their hidden channels, the fewer the smaller the scale, and a head that makes
pixels at any scale. What a block leaves out is told by the scale, which is mixed into the weights of its channels (section 3.3).
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.liif import Liif
from models.nearest import Axis
from models.srno import Srno
from models.srno import published as published_srno
from models.weights import Blueprint, Checkpoint, adopt, told

# Shares of the hidden channels at scales up to 1.7, 2.5 and 3.2; all of them beyond.
WIDTHS = {"edsr": (0.5, 0.7, 0.9), "rdn": (0.7, 0.8, 0.9)}
# Pooled channels between two places where the scale is told.
RUN = 16


def width_by_scale(encoder: str, scale: Fraction) -> float:
    """The paper's share of hidden channels (section 3.2): only scales of one decimal are known, 1.1 to 3.2; others run in full."""
    tenths = 10 * scale
    if tenths.denominator != 1 or not 11 <= tenths <= 32:
        return 1.0
    return WIDTHS[encoder][0 if tenths <= 17 else 1 if tenths <= 25 else 2]


def with_scale(pooled: Tensor, scale: Fraction) -> Tensor:
    """Pooled channels (N, C) with the scale twice behind each full run of 16: (N, C + 2 * (C // 16)).

    Its sign is negative where ten times the scale is odd, as in the published code.
    """
    sign = -1.0 if (10 * scale).denominator == 1 and (10 * scale) % 2 == 1 else 1.0
    pair = pooled.new_full((len(pooled), 2), sign * float(scale))
    parts = []
    for run in pooled.split(RUN, dim=1):
        parts += [run, pair] if run.shape[1] == RUN else [run]
    return torch.cat(parts, dim=1)


class Gate(nn.Module):
    """Weights 0..1 of hidden channels from their means over the window and the scale (section 3.3); `channels` at full width."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels + 2 * (channels // RUN), inner)
        self.excite = nn.Linear(inner, channels)

    def forward(self, pooled: Tensor, scale: Fraction) -> Tensor:
        """(N, kept) -> (N, kept)."""
        told, kept = with_scale(pooled, scale), pooled.shape[1]
        inner = F.relu(F.linear(told, self.squeeze.weight[:, : told.shape[1]], self.squeeze.bias))
        return torch.sigmoid(F.linear(inner, self.excite.weight[:kept], self.excite.bias[:kept]))

    def cost(self, kept: int) -> int:
        """Multiply-adds for one window."""
        return self.squeeze.out_features * (2 * kept + 2 * (kept // RUN))


class Block(nn.Module):
    """EDSR's residual block with a gate on its hidden channels, of which only the first `width` are computed."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(features, features, 3, padding=1)
        self.gate = Gate(features, 2 * features)
        self.second = nn.Conv2d(features, features, 3, padding=1)

    def kept(self, width: float) -> int:
        """Hidden channels at a share of `width`, rounded down."""
        return int(self.first.out_channels * width)

    def forward(self, x: Tensor, scale: Fraction, width: float) -> Tensor:
        kept = self.kept(width)
        assert self.first.bias is not None
        hidden = F.conv2d(x, self.first.weight[:kept], self.first.bias[:kept], padding=1)
        gate = self.gate(hidden.mean(dim=(2, 3)), scale)
        return x + F.conv2d(F.relu(hidden * gate[:, :, None, None]), self.second.weight[:, :kept], self.second.bias, padding=1)


class Edsr(nn.Module):
    """EDSR without its enlarging part, of slim blocks: (N, 3, h, w) -> (N, features, h, w)."""

    def __init__(self, blocks: int = 16, features: int = 64) -> None:
        super().__init__()
        self.features = features
        self.entry = nn.Conv2d(3, features, 3, padding=1)
        self.blocks: Sequence[Block] = nn.ModuleList(Block(features) for _ in range(blocks))  # type: ignore[assignment]
        self.join = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, x: Tensor, scale: Fraction, width: float) -> Tensor:
        entered = x = self.entry(x)
        for block in self.blocks:
            x = block(x, scale, width)
        return entered + self.join(x)


ENCODERS: dict[str, type[Edsr]] = {"edsr": Edsr}
HEADS: dict[str, type[Srno | Liif]] = {"srno": Srno, "liif": Liif}


class AnySr(nn.Module):
    """The network in a form that can be trained.

    encoder: of ENCODERS; head: of HEADS; the arguments are those of their constructors, but for the head's features.
    """

    def __init__(
        self,
        encoder: str = "edsr",
        encoder_arguments: dict[str, Any] | None = None,
        head: str = "srno",
        head_arguments: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        for asked, known in ((encoder, ENCODERS), (head, HEADS)):
            if asked not in known:
                raise ValueError(f"AnySR has no part {asked!r}; known are {', '.join(known)}")
        self.kind = encoder
        self.encoder = ENCODERS[encoder](**(encoder_arguments or {}))
        self.head = HEADS[head](self.encoder.features, **(head_arguments or {}))

    def forward(self, x: Tensor, rows: Axis, columns: Axis, scale: Fraction, width: float = 1.0, stretch: float = 1.0) -> Tensor:
        """x (N, 3, h, w), values around the mean, to what is added to their bilinear enlargement, (N, 3, H, W).

        rows, columns: of the output (models.nearest.axes gives a window's). scale: told to the blocks; width: share of their hidden
        channels, above 0 to 1. stretch: of the cell, for scales beyond those that were trained.
        """
        return self.head(self.encoder(x, scale, width), rows, columns, stretch)


def own_name(theirs: str, blocks: int) -> str | None:
    """Our name for a weight of the published EDSR encoder with `blocks` blocks; None for the mean, which is folded into the entry."""
    stage, *rest = theirs.split(".")
    if stage in ("sub_mean", "add_mean"):
        return None
    if stage == "head":
        return f"entry.{rest[1]}"
    if rest[0] == str(blocks):
        return f"join.{rest[1]}"
    layer = {"conv1": "first", "conv2": "second", "fc1": "gate.squeeze", "fc2": "gate.excite"}[rest[1]]
    return f"blocks.{rest[0]}.{layer}.{rest[2]}"


def published(tensors: Mapping[str, Tensor], config: Mapping[str, Any], mean: tuple[float, float, float]) -> Checkpoint:
    """Published weights as our checkpoint.

    config: the published model's, {"encoder_spec", "width", "blocks"}, where blocks are the heads of the attention. Input and output of
    the published network are 2 * value - 1, and the encoder takes its own mean away: both become part of entry, mean and last layer.
    """
    given, origin = told(config), "the published AnySR"
    part = {name.removeprefix("encoder."): tensor for name, tensor in tensors.items() if name.startswith("encoder.")}
    if "head.0.weight" not in part:
        raise ValueError(f"{origin} needs 'encoder.head.0.weight' but only has {', '.join(list(tensors)[:5])} and so on")
    listed = {int(name.split(".")[1]) for name in part if name.startswith("body.")}
    blocks = told(given.get("encoder_spec", {})).get("n_resblocks", max(listed, default=0))
    encoder_arguments = {"blocks": blocks, "features": part["head.0.weight"].shape[0]}
    encoder = Edsr(**encoder_arguments)
    flat = {name: t[:, :, 0, 0] if ".fc" in name and t.ndim == 4 else t for name, t in part.items()}
    made = {f"encoder.{name}": t for name, t in adopt(encoder, flat, lambda name: own_name(name, blocks), origin).items()}
    made["encoder.entry.weight"] = 2 * made["encoder.entry.weight"]
    head_arguments, head = published_srno(tensors, given, encoder.features, origin)
    made.update({f"head.{name}": tensor for name, tensor in head.items()})
    arguments = {"encoder": "edsr", "encoder_arguments": encoder_arguments, "head": "srno", "head_arguments": head_arguments}
    red, green, blue = (0.5 - part["sub_mean.bias"] / 2).tolist() if "sub_mean.bias" in part else (0.5,) * 3
    return Checkpoint(Blueprint("anysr", 0, arguments, (red, green, blue), "bilinear"), made)
