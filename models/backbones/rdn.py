"""RDN (Zhang, Tian, Kong, Zhong and Fu 2018, "Residual Dense Network for Image Super-Resolution",
section 3): blocks in which every convolution sees all that came before it, and whose outputs are
all put together at the end.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tierscale.models.backbones.edsr import Tail
from tierscale.models.backbones.initial import he
from tierscale.models.contract.checkpoints import Blueprint, Checkpoint, adopt, told
from tierscale.models.runtime.stream import (
    Chain,
    Convolve,
    Delay,
    RowNetwork,
    Skip,
    Stream,
    check_scale,
)


class Block(nn.Module):
    """Residual dense block (equations 5 to 7): `layers` 3x3 convolutions of `growth` channels each,
    a 1x1 that fuses all, and the input.
    """

    def __init__(self, features: int, growth: int, layers: int) -> None:
        super().__init__()
        self.layers: Sequence[nn.Conv2d] = nn.ModuleList(  # type: ignore[assignment]
            nn.Conv2d(features + index * growth, growth, 3, padding=1) for index in range(layers)
        )
        self.fuse = nn.Conv2d(features + layers * growth, features, 1)

    def forward(self, x: Tensor) -> Tensor:
        known = x
        for layer in self.layers:
            known = torch.cat([known, F.relu(layer(known))], dim=1)
        return x + self.fuse(known)

    def stream(self) -> Stream:
        """The same block, fed by rows."""
        return Skip(
            Chain(Dense([Convolve.of(layer) for layer in self.layers]), Convolve.of(self.fuse))
        )


class Dense:
    """Convolutions fed by rows, each with what entered and what all before it made; gives all of
    that, side by side as channels.
    """

    def __init__(self, layers: Sequence[Stream]) -> None:
        self.layers, self.delays = layers, [Delay() for _ in layers]

    def push(self, rows: Tensor, last: bool) -> Tensor:
        for layer, delay in zip(self.layers, self.delays, strict=True):
            made = layer.push(rows, last).relu_()
            rows = torch.cat([delay.match(rows, made.shape[2]), made], dim=1)
        return rows


class Together:
    """Stages fed by rows one after another; gives what all of them made, side by side as
    channels.
    """

    def __init__(self, stages: Sequence[Stream]) -> None:
        self.stages, self.delays = stages, [Delay() for _ in stages]

    def push(self, rows: Tensor, last: bool) -> Tensor:
        known: Tensor | None = None
        for stage, delay in zip(self.stages, self.delays, strict=True):
            rows = stage.push(rows, last)
            known = (
                rows
                if known is None
                else torch.cat([delay.match(known, rows.shape[2]), rows], dim=1)
            )
        assert known is not None
        return known


class Rdn(RowNetwork):
    """(N, 3, h, w) -> (N, 3, scale * h, scale * w), values around the mean.

    features: channels between blocks; growth: of each convolution; blocks: residual dense blocks;
    layers: convolutions in each.
    """

    def __init__(
        self,
        scale: int = 4,
        features: int = 64,
        growth: int = 64,
        blocks: int = 16,
        layers: int = 8,
    ) -> None:
        super().__init__()
        check_scale("RDN", scale)
        self.scale = scale
        # Entries 2, each layer of each block 1, the join 1, first growing convolution 1; finer ones
        # add less than one pixel more.
        self.reach = 2 + blocks * layers + 3
        self.first, self.second = (
            nn.Conv2d(3, features, 3, padding=1),
            nn.Conv2d(features, features, 3, padding=1),
        )
        self.blocks: Sequence[Block] = nn.ModuleList(
            Block(features, growth, layers) for _ in range(blocks)
        )  # type: ignore[assignment]
        self.fuse, self.join = (
            nn.Conv2d(blocks * features, features, 1),
            nn.Conv2d(features, features, 3, padding=1),
        )
        self.tail = Tail(scale, features)
        he(self, {0.1: [block.fuse for block in self.blocks], 0.02: [self.tail.exit]})

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge x (N, 3, h, w); the form that is trained."""
        first = self.first(x)
        body, made = self.second(first), []
        for block in self.blocks:
            body = block(body)
            made.append(body)
        return self.tail(first + self.join(self.fuse(torch.cat(made, dim=1))))

    def stream(self) -> Stream:
        """The same network, fed by rows."""
        body = Together([block.stream() for block in self.blocks])
        inner = Skip(
            Chain(Convolve.of(self.second), body, Convolve.of(self.fuse), Convolve.of(self.join))
        )
        return Chain(Convolve.of(self.first), inner, self.tail.stream())


def own_name(theirs: str) -> str | None:
    """Our name for a weight of the published RDN (the authors' code in PyTorch); None for a
    mean.
    """
    stage, *rest = theirs.split(".")
    if stage in ("sub_mean", "add_mean"):
        return None
    if stage.startswith("SFENet"):
        return f"{ {'1': 'first', '2': 'second'}[stage[6:]] }.{rest[0]}"
    if stage == "GFF":
        return f"{ {'0': 'fuse', '1': 'join'}[rest[0]] }.{rest[1]}"
    if stage == "RDBs" and rest[1] == "convs":  # RDBs.3.convs.5.conv.0.weight
        return f"blocks.{rest[0]}.layers.{rest[2]}.{rest[5]}"
    if stage == "RDBs":  # RDBs.3.LFF.weight; fc1 and fc2 are AnySR's
        return f"blocks.{rest[0]}.{ {'LFF': 'fuse', 'fc1': 'gate.squeeze', 'fc2': 'gate.excite'}[rest[1]] }.{rest[2]}"
    return theirs


def sizes(tensors: Mapping[str, Tensor], origin: str) -> dict[str, int]:
    """Constructor arguments that the shapes of a published RDN tell; ValueError where there is
    none.
    """
    first = "RDBs.0.convs.0.conv.0.weight"
    if first not in tensors:
        raise ValueError(
            f"{origin} needs {first!r} but only has {', '.join(list(tensors)[:5])} and so on"
        )
    names = [name.split(".") for name in tensors if name.startswith("RDBs.")]
    growth, features = tensors[first].shape[:2]
    blocks = 1 + max(int(name[1]) for name in names)
    return {
        "features": features,
        "growth": growth,
        "blocks": blocks,
        "layers": 1 + max(int(n[3]) for n in names if n[2] == "convs"),
    }


def published(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any], mean: tuple[float, float, float]
) -> Checkpoint:
    """Published weights for values 0..1 as our checkpoint; the shapes tell all arguments but the
    scale, which is in `config`.

    ValueError naming a key that does not fit.
    """
    origin = "the published RDN"
    arguments, scale = sizes(tensors, origin), int(told(config).get("scale", 4))
    convolutions = {
        "0": "grow.0",
        "2": "grow.1" if scale == 4 else "exit",
        "4": "exit",
    }  # between them shuffles

    def with_tail(theirs: str) -> str | None:
        stage, index, *rest = theirs.split(".")
        return f"tail.{convolutions[index]}.{rest[0]}" if stage == "UPNet" else own_name(theirs)

    return Checkpoint(
        Blueprint("rdn", scale, arguments, mean),
        adopt(Rdn(scale, **arguments), tensors, with_tail, origin),
    )
