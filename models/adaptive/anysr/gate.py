"""What the slim encoders of AnySR share: gates, and rows in bands.

arXiv 2407.04241, section 3.3.
"""

from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tierscale.models.runtime.stages import feed
from tierscale.models.runtime.stream import BAND, Stream

# Pooled channels between two places where the scale is put in.
RUN = 16


def with_scale(pooled: Tensor, scale: Fraction) -> Tensor:
    """Pooled channels (N, C) with the scale twice behind each full run of 16.

    (N, C + 2 * (C // 16)). Its sign is negative where ten times the scale is odd, as in the
    upstream code.
    """
    sign = -1.0 if 10 * scale % 2 == 1 else 1.0
    pair = pooled.new_full((len(pooled), 2), sign * float(scale))
    parts = []
    for run in pooled.split(RUN, dim=1):
        parts += [run, pair] if run.shape[1] == RUN else [run]
    return torch.cat(parts, dim=1)


class Gate(nn.Module):
    """Weights 0..1 of hidden channels from their means over the window and the scale.

    Section 3.3; `channels` at full width.
    """

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels + 2 * (channels // RUN), inner)
        self.excite = nn.Linear(inner, channels)

    def forward(self, pooled: Tensor, scale: Fraction) -> Tensor:
        """(N, kept) -> (N, kept)."""
        known, kept = with_scale(pooled, scale), pooled.shape[1]
        inner = F.relu(F.linear(known, self.squeeze.weight[:, : known.shape[1]], self.squeeze.bias))
        return torch.sigmoid(F.linear(inner, self.excite.weight[:kept], self.excite.bias[:kept]))

    def cost(self, kept: int) -> int:
        """Multiply-adds for one window."""
        return self.squeeze.out_features * (2 * kept + 2 * (kept // RUN))


def band() -> int:
    """Pixels that blocks take at a time: each thread its part.

    Measured with two threads: 0.85 of the time of half as many.
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
