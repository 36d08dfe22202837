"""CARN-M: residual units with grouped convolutions, shared within a block, in two cascades.

Ahn, Kang and Sohn 2018, "Fast, Accurate, and Lightweight Super-Resolution with Cascading Residual
Network", sections 3.2 and 3.3.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tierscale.models.contract.modules import module_list
from tierscale.models.runtime.stream import (
    Chain,
    Convolve,
    Delay,
    Finely,
    RowNetwork,
    Stream,
    check_scale,
    shuffle,
)

# Input pixels that the enlarging part takes at a time: at scale 4 its maps are sixteen times as
# large as the body's.
TAIL = 1024


class Unit(nn.Module):
    """Efficient residual unit (section 3.3, figure 3b); reaches 2 pixels.

    Two grouped 3x3 and a 1x1 convolution, added to the input.
    """

    def __init__(self, features: int, groups: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(features, features, 3, padding=1, groups=groups)
        self.second = nn.Conv2d(features, features, 3, padding=1, groups=groups)
        self.mix = nn.Conv2d(features, features, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.mix(F.relu(self.second(F.relu(self.first(x))))))


def merges(features: int, norm: bool) -> Sequence[nn.Module]:
    """The 1x1 convolutions of a cascade, from 2, 3 and 4 times `features` to `features`."""

    def one(count: int) -> nn.Module:
        convolution = nn.Conv2d(count * features, features, 1, bias=not norm)
        return nn.Sequential(convolution, nn.BatchNorm2d(features)) if norm else convolution

    return module_list(one(count) for count in (2, 3, 4))


class Block(nn.Module):
    """Cascading block (equation 3) of one residual unit, used three times; reaches 6 pixels."""

    def __init__(self, features: int, groups: int, norm: bool) -> None:
        super().__init__()
        self.unit = Unit(features, groups)
        self.merges = merges(features, norm)

    def forward(self, x: Tensor) -> Tensor:
        known, last = x, x
        for merge in self.merges:
            known = torch.cat([known, self.unit(last)], dim=1)
            last = F.relu(merge(known))
        return last

    def stream(self) -> Stream:
        """The same block, fed by rows."""
        return Cascade([UnitRows(self.unit) for _ in range(3)], self.merges)


class Carn(RowNetwork):
    """(N, 3, h, w) -> (N, 3, scale * h, scale * w), values around the mean.

    features: channels; groups: of the 3x3 convolutions; norm: batch norm in place of the bias
    behind the merging 1x1 convolutions, as in upstream weights. features_only: what comes
    before the enlarging part, (N, features, h, w), at scale 1.
    """

    reach: int

    def __init__(
        self,
        scale: int = 4,
        features: int = 64,
        groups: int = 4,
        norm: bool = False,
        features_only: bool = False,
    ) -> None:
        super().__init__()
        check_scale("CARN", scale)
        self.scale = 1 if features_only else scale
        # Entry 1, nine units of 2; then the first growing convolution 1, and what follows at finer
        # resolution less than one pixel more.
        self.reach = 19 if features_only else 21
        self.features, self.groups = features, groups
        self.entry = nn.Conv2d(3, features, 3, padding=1)
        self.blocks = module_list(Block(features, groups, norm) for _ in range(3))
        self.merges = merges(features, norm)
        self.steps = () if features_only else (2, 2) if scale == 4 else (scale,)
        self.grow = module_list(
            nn.Conv2d(features, features * s * s, 3, padding=1, groups=groups) for s in self.steps
        )
        if not features_only:
            self.exit = nn.Conv2d(features, 3, 3, padding=1)
        self._initialise()

    def _initialise(self) -> None:
        """He's normal weights, damped where a branch joins and at the exit.

        Training then starts near the residual.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            if isinstance(module, Unit):
                nn.init.kaiming_normal_(module.mix.weight)
        with torch.no_grad():
            for block in self.blocks:
                block.unit.mix.weight.mul_(0.2)
            if self.steps:
                self.exit.weight.mul_(0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge x (N, 3, h, w); the form that is trained."""
        known = last = self.entry(x)
        for block, merge in zip(self.blocks, self.merges, strict=True):
            known = torch.cat([known, block(last)], dim=1)
            last = F.relu(merge(known))
        if not self.steps:
            return last
        for grow, step in zip(self.grow, self.steps, strict=True):
            last = F.pixel_shuffle(F.relu(grow(last)), step)
        return self.exit(last)

    def stream(self) -> Stream:
        """The same network, fed by rows."""
        body = Chain(
            Convolve.of(self.entry), Cascade([block.stream() for block in self.blocks], self.merges)
        )
        if not self.steps:
            return body
        tail: list[Stream | Callable[[Tensor], Tensor]] = []
        for grow, step in zip(self.grow, self.steps, strict=True):
            tail += [Convolve.of(grow), torch.relu_, shuffle(step)]
        return Chain(body, Finely(Chain(*tail, Convolve.of(self.exit)), TAIL))

    def fold(self) -> "Carn":
        """The same network with its batch norms worked into the 1x1 convolutions before them."""
        plain = (
            Carn(self.scale, self.features, self.groups)
            if self.steps
            else Carn(4, self.features, self.groups, features_only=True)
        )
        plain.load_state_dict(folded(self.state_dict()))
        return plain.eval()


def folded(tensors: Mapping[str, Tensor], epsilon: float = 1e-5) -> dict[str, Tensor]:
    """Weights with batch norm as those of a network without (Ioffe and Szegedy 2015, section 3.1).

    Scaled 1x1 convolutions with a bias.
    """
    result = {}
    for name, tensor in tensors.items():
        stem, _, part = name.rpartition(".0.")
        norm = f"{stem}.1."
        if part != "weight" or norm + "running_var" not in tensors:
            if ".1." not in name.partition("merges.")[2]:
                result[name] = tensor
            continue
        gain = tensors[norm + "weight"] / (tensors[norm + "running_var"] + epsilon).sqrt()
        result[f"{stem}.weight"] = tensor * gain[:, None, None, None]
        result[f"{stem}.bias"] = tensors[norm + "bias"] - tensors[norm + "running_mean"] * gain
    return result


class UnitRows:
    """A residual unit fed by rows."""

    def __init__(self, unit: Unit) -> None:
        self.first, self.second = Convolve.of(unit.first), Convolve.of(unit.second)
        self.mix = unit.mix
        self.delay = Delay()

    def push(self, rows: Tensor, last: bool) -> Tensor:
        inner = self.second.push(self.first.push(rows, last).relu_(), last).relu_()
        return self.mix(inner).add_(self.delay.match(rows, inner.shape[2])).relu_()


class Cascade:
    """CARN's cascade (equation 3) fed by rows.

    Each merging convolution sees the input and all stages so far.
    """

    def __init__(self, stages: Sequence[Stream], merges: Sequence[nn.Module]) -> None:
        self.stages, self.merges = stages, merges
        self.delays = [Delay() for _ in stages]

    def push(self, rows: Tensor, last: bool) -> Tensor:
        known = current = rows
        for stage, merge, delay in zip(self.stages, self.merges, self.delays, strict=True):
            rows = stage.push(current, last)
            known = torch.cat([delay.match(known, rows.shape[2]), rows], dim=1)
            current = merge(known).relu_()
        return current
