"""Encoders that can run with only the first of their hidden channels (AnySR, arXiv 2407.04241,
section 3.2 and 3.3).

What a block computes is weighed, channel by channel, by what the whole window holds of it and by
the scale.
"""

from collections.abc import Sequence
from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tierscale.models.backbones.rdn import Dense
from tierscale.models.runtime.stages import Rejoin, feed
from tierscale.models.runtime.stream import BAND, Convolve, Stream, bands

# Pooled channels between two places where the scale is told.
RUN = 16


def with_scale(pooled: Tensor, scale: Fraction) -> Tensor:
    """Pooled channels (N, C) with the scale twice behind each full run of 16: (N, C + 2 * (C //
    16)).

    Its sign is negative where ten times the scale is odd, as in the published code.
    """
    sign = -1.0 if 10 * scale % 2 == 1 else 1.0
    pair = pooled.new_full((len(pooled), 2), sign * float(scale))
    parts = []
    for run in pooled.split(RUN, dim=1):
        parts += [run, pair] if run.shape[1] == RUN else [run]
    return torch.cat(parts, dim=1)


class Gate(nn.Module):
    """Weights 0..1 of hidden channels from their means over the window and the scale (section 3.3);
    `channels` at full width.
    """

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


def tap_sums(x: Tensor, total: Tensor) -> Tensor:
    """What each tap of a 3x3 convolution with zeros around x (N, C, h, w) sees in all: (N, C, 3,
    3). total: sums of x, (N, C).

    The mean of the convolution's output follows from it alone.
    """
    rows = [
        x[:, :, -1].sum(dim=2),
        torch.zeros_like(total),
        x[:, :, 0].sum(dim=2),
    ]  # that the tap of row -1, 0, 1 does not see
    columns = [x[..., -1].sum(dim=2), torch.zeros_like(total), x[..., 0].sum(dim=2)]
    both = [
        [
            x[:, :, i, j] if i is not None and j is not None else torch.zeros_like(total)
            for j in (-1, None, 0)
        ]
        for i in (-1, None, 0)
    ]
    seen = [total - rows[i] - columns[j] + both[i][j] for i in range(3) for j in range(3)]
    return torch.stack(seen, dim=2).unflatten(2, (3, 3))


class EdsrBlock(nn.Module):
    """EDSR's residual block with a gate on its hidden channels, of which only the first are
    computed.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(features, features, 3, padding=1)
        self.gate = Gate(features, 2 * features)
        self.second = nn.Conv2d(features, features, 3, padding=1)

    def kept(self, width: float) -> int:
        """Hidden channels at a share of `width`, rounded down, at least one."""
        return max(1, int(self.first.out_channels * width))

    def forward(self, x: Tensor, scale: Fraction, width: float) -> Tensor:
        kept = self.kept(width)
        assert self.first.bias is not None
        hidden = F.conv2d(x, self.first.weight[:kept], self.first.bias[:kept], padding=1)
        gate = self.gate(hidden.mean(dim=(2, 3)), scale)
        return x + F.conv2d(
            F.relu(hidden * gate[:, :, None, None]),
            self.second.weight[:, :kept],
            self.second.bias,
            padding=1,
        )

    def advance(
        self, x: Tensor, result: Tensor, total: Tensor, scale: Fraction, width: float
    ) -> Tensor:
        """The block on one window of sums `total` (1, C), a few rows at a time; its sums (1, C).

        x, result: maps (1, C, h + 2, w) whose first and last rows are zeros. The gate is known
        before the hidden channels are, and being positive it can be drawn through the ReLU into the
        second convolution.
        """
        kept, inner = self.kept(width), x[:, :, 1:-1]
        (height, columns), sums, row = inner.shape[2:], torch.zeros_like(total), 1
        assert self.first.bias is not None
        first, bias = self.first.weight[:kept], self.first.bias[:kept]
        gate = self.gate(
            F.linear(tap_sums(inner, total).flatten(1), first.flatten(1)) / (height * columns)
            + bias,
            scale,
        )
        second = (self.second.weight[:, :kept] * gate[:, :, None, None]).contiguous(
            memory_format=torch.channels_last
        )
        cuts = list(bands(height, columns, 1, band()))
        # Hidden rows of a band stand behind the last two of the one before; the first row of all is
        # of zeros, and so is the one after them.
        room = max(stop - start for start, stop in cuts) + 3
        hidden, held = empty(x, kept, room, columns), 1
        hidden[:, :, 0] = 0
        for start, stop in cuts:
            made = F.conv2d(x[:, :, start : stop + 2], first, bias, padding=(0, 1))
            torch.clamp_min(made, 0, out=hidden[:, :, held : held + stop - start])
            held += stop - start
            if stop == height:
                hidden[:, :, held] = 0
                held += 1
            made = F.conv2d(hidden[:, :, :held], second, self.second.bias, padding=(0, 1))
            rows = slice(row, row + held - 2)
            sums += torch.add(x[:, :, rows], made, out=result[:, :, rows]).sum(dim=(2, 3))
            hidden[:, :, :2] = hidden[:, :, held - 2 : held].clone()
            row, held = rows.stop, 2
        return sums

    def cost(self, pixels: int, width: float) -> int:
        """Multiply-adds for one window of so many pixels, as streamed."""
        kept, features = self.kept(width), self.first.out_channels
        return 18 * features * kept * pixels + 9 * features * kept + self.gate.cost(kept)


class SlimEdsr(nn.Module):
    """EDSR without its enlarging part, of slim blocks: (N, 3, h, w) -> (N, features, h, w)."""

    def __init__(self, blocks: int = 16, features: int = 64) -> None:
        super().__init__()
        self.features = features
        self.entry = nn.Conv2d(3, features, 3, padding=1)
        self.blocks: Sequence[EdsrBlock] = nn.ModuleList(EdsrBlock(features) for _ in range(blocks))  # type: ignore[assignment]
        self.join = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, x: Tensor, scale: Fraction, width: float) -> Tensor:
        """scale: told to the gates; width: share of the hidden channels, above 0 to 1. The form
        that is trained.
        """
        entered = x = self.entry(x)
        for block in self.blocks:
            x = block(x, scale, width)
        return entered + self.join(x)

    def run(self, x: Tensor, scale: Fraction, width: float) -> Tensor:
        """The same for one window (1, 3, h, w), a few rows at a time."""
        entered = fed(Convolve.of(self.entry), x, 1)
        total = entered.sum(dim=(2, 3))
        # Each block reads one map and writes the other, so that its rows need not be copied; a row
        # of zeros lies above and below.
        high, wide = x.shape[2] + 2, x.shape[3]
        maps = [empty(x, self.features, high, wide) for _ in range(2)]
        for one in maps:
            one[:, :, [0, -1]] = 0
        maps[0][:, :, 1:-1] = entered
        for block in self.blocks:
            total = block.advance(maps[0], maps[1], total, scale, width)
            maps.reverse()
        del maps[1]  # so that the end needs no more than memory() tells
        return fed(Rejoin(entered, Convolve.of(self.join)), maps[0][:, :, 1:-1], 1)

    def cost(self, pixels: int, width: float) -> int:
        """Multiply-adds of run() for one window of so many pixels."""
        ends = 9 * self.features * (3 + self.features) * pixels
        return ends + sum(block.cost(pixels, width) for block in self.blocks)


class RdnBlock(nn.Module):
    """RDN's dense block of eight convolutions, the fifth and seventh slim, with a gate on the last
    channels.

    As in the published code, the gate's channels are as many as the slim convolutions make, counted
    from the end, and a convolution that sees fewer channels than it was made for uses its first
    weights.
    """

    LAYERS, SLIM = 8, (4, 6)

    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        self.growth = growth
        self.layers: Sequence[nn.Conv2d] = nn.ModuleList(  # type: ignore[assignment]
            nn.Conv2d(features + index * growth, growth, 3, padding=1)
            for index in range(self.LAYERS)
        )
        self.gate = Gate(2 * growth, 256)
        self.fuse = nn.Conv2d(features + self.LAYERS * growth, features, 1)

    def kept(self, width: float) -> int:
        """Channels of a slim convolution at a share of `width`, rounded down, at least one."""
        return max(1, int(self.growth * width))

    def slices(self, width: float) -> list[tuple[Tensor, Tensor]]:
        """Weight and bias of each convolution, as far as they are used."""
        known, parts = self.fuse.out_channels, []
        for index, layer in enumerate(self.layers):
            made = self.kept(width) if index in self.SLIM else self.growth
            assert layer.bias is not None
            parts.append((layer.weight[:made, :known], layer.bias[:made]))
            known += made
        return parts

    def forward(self, x: Tensor, scale: Fraction, width: float) -> Tensor:
        known = x
        for weight, bias in self.slices(width):
            known = torch.cat([known, F.relu(F.conv2d(known, weight, bias, padding=1))], dim=1)
        late = known[:, -2 * self.kept(width) :]
        early = known[:, : -late.shape[1]]
        gated = late * self.gate(late.mean(dim=(2, 3)), scale)[:, :, None, None]
        return x + F.conv2d(
            torch.cat([early, gated], dim=1), self.fuse.weight[:, : known.shape[1]], self.fuse.bias
        )

    def run(self, x: Tensor, scale: Fraction, width: float) -> None:
        """The same for one window x (1, C, h, w), in its place: the gated channels wait until their
        means are known.
        """
        parts = self.slices(width)
        late = 2 * self.kept(width)
        early = sum(len(weight) for weight, _ in parts) + x.shape[1] - late
        row, waiting, total = 0, [], x.new_zeros(1, late)
        for known in feed(
            Dense([Convolve(weight, bias) for weight, bias in parts]), x, self.LAYERS, band()
        ):
            waiting.append(known[:, early:].clone())
            total += waiting[-1].sum(dim=(2, 3))
            x[:, :, row : row + known.shape[2]] += F.conv2d(
                known[:, :early], self.fuse.weight[:, :early], self.fuse.bias
            )
            row += known.shape[2]
        gate = self.gate(total / (x.shape[2] * x.shape[3]), scale)
        weight, row = self.fuse.weight[:, early : early + late] * gate[:, :, None, None], 0
        for rows in waiting:
            x[:, :, row : row + rows.shape[2]] += F.conv2d(rows, weight)
            row += rows.shape[2]

    def cost(self, pixels: int, width: float) -> int:
        """Multiply-adds for one window of so many pixels."""
        parts = [weight for weight, _ in self.slices(width)]
        known = parts[0].shape[1] + sum(len(weight) for weight in parts)
        return (
            sum(weight.numel() for weight in parts) + known * self.fuse.out_channels
        ) * pixels + self.gate.cost(2 * self.kept(width))


class SlimRdn(nn.Module):
    """RDN without its enlarging part, of slim blocks: (N, 3, h, w) -> (N, features, h, w)."""

    def __init__(self, blocks: int = 16, features: int = 64, growth: int = 64) -> None:
        super().__init__()
        self.features = features
        self.first, self.second = (
            nn.Conv2d(3, features, 3, padding=1),
            nn.Conv2d(features, features, 3, padding=1),
        )
        self.blocks: Sequence[RdnBlock] = nn.ModuleList(
            RdnBlock(features, growth) for _ in range(blocks)
        )  # type: ignore[assignment]
        self.fuse, self.join = (
            nn.Conv2d(blocks * features, features, 1),
            nn.Conv2d(features, features, 3, padding=1),
        )

    def forward(self, x: Tensor, scale: Fraction, width: float) -> Tensor:
        """scale: told to the gates; width: share of the hidden channels, above 0 to 1. The form
        that is trained.
        """
        first = self.first(x)
        body, made = self.second(first), []
        for block in self.blocks:
            body = block(body, scale, width)
            made.append(body)
        return first + self.join(self.fuse(torch.cat(made, dim=1)))

    def run(self, x: Tensor, scale: Fraction, width: float) -> Tensor:
        """The same for one window (1, 3, h, w), a few rows at a time."""
        first = fed(Convolve.of(self.first), x, 1)
        body = fed(Convolve.of(self.second), first, 1)
        total: Tensor | None = None
        for block, weight in zip(
            self.blocks, self.fuse.weight.split(self.features, dim=1), strict=True
        ):
            block.run(body, scale, width)
            total = (
                F.conv2d(body, weight, self.fuse.bias)
                if total is None
                else total.add_(F.conv2d(body, weight))
            )
        assert total is not None
        return fed(Rejoin(first, Convolve.of(self.join)), total, 1)

    def cost(self, pixels: int, width: float) -> int:
        """Multiply-adds of run() for one window of so many pixels."""
        ends = self.features * (27 + 18 * self.features + self.fuse.in_channels) * pixels
        return ends + sum(block.cost(pixels, width) for block in self.blocks)


def band() -> int:
    """Pixels that blocks take at a time: each thread its part (measured with two threads: 0.85 of
    the time of half as many).
    """
    return BAND * torch.get_num_threads()


def fed(stream: Stream, x: Tensor, reach: int) -> Tensor:
    """What a stream makes of one window x (1, C, h, w): a new map."""
    return torch.cat(list(feed(stream, x, reach, band())), dim=2)


def empty(like: Tensor, channels: int, height: int, width: int) -> Tensor:
    """A map (1, channels, height, width) that nothing is written to yet, channels last."""
    return torch.empty(
        1,
        channels,
        height,
        width,
        dtype=like.dtype,
        device=like.device,
        memory_format=torch.channels_last,
    )
