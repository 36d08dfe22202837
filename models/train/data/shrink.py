"""Shrinking as MATLAB's imresize does it: antialiased bicubic, symmetric border.

The degradation that the protocol is defined by.
"""

from fractions import Fraction
from functools import lru_cache

import torch
from torch import Tensor

from tierscale.models.runtime.resample import cubic

# Up to so many pixels a side are shrunk by one matrix; larger images by bands of so many outputs,
# in memory and work that grow with the number of pixels. One matrix for 10,000 pixels would take
# 200 MB and 37 times the work.
SMALL, BAND = 512, 64


def shrunk_length(length: int, scale: Fraction) -> int:
    """Pixels that `length` pixels become when shrunk by `scale`: rounded up, as imresize does."""
    return -(-length * scale.denominator // scale.numerator)


# Training asks for the same few small ones at every step.
@lru_cache(maxsize=64)
def band(length: int, scale: Fraction, first: int, last: int) -> tuple[int, Tensor]:
    """The first input that outputs first:last need, and their weights from there on.

    Float64, each row adding up to one. The cubic kernel (a = -0.5) is widened by `scale` against
    aliasing; beyond the border the image is mirrored with the border pixel repeated.
    """
    factor = float(scale)
    centres = (torch.arange(first, last, dtype=torch.float64) + 0.5) * factor - 0.5
    span = int(4 * factor) + 3
    taps = torch.floor(centres - 2 * factor).long()[:, None] + torch.arange(span)
    weights = cubic((centres[:, None] - taps) / factor)
    weights = weights / weights.sum(dim=1, keepdim=True)
    folded = taps.remainder(2 * length)
    folded = torch.where(folded < length, folded, 2 * length - 1 - folded)
    start, stop = int(folded.min()), int(folded.max()) + 1
    return start, torch.zeros(last - first, stop - start, dtype=torch.float64).scatter_add_(
        1, folded - start, weights
    )


def bands(length: int, scale: Fraction, device: torch.device) -> list[tuple[int, int, Tensor]]:
    """What shrinks `length` pixels, in order.

    The inputs from where to where, and the weights of the outputs that they become.
    """
    count = shrunk_length(length, scale)
    step = count if length <= SMALL else BAND
    parts = [
        band(length, scale, first, min(first + step, count)) for first in range(0, count, step)
    ]
    return [(start, start + weights.shape[1], weights.to(device)) for start, weights in parts]


def shrink(image: Tensor, scale: Fraction | int) -> Tensor:
    """Shrink image (..., H, W) by `scale` >= 1 to (..., ceil(H / scale), ceil(W / scale)).

    Float32, not rounded, not clamped. ValueError: a scale below 1.
    """
    exact = Fraction(scale)
    if exact < 1:
        raise ValueError(
            f"cannot shrink by {exact}, which would enlarge; give a scale of at least 1"
        )
    columns = [
        (left, right, weights.T)
        for left, right, weights in bands(image.shape[-1], exact, image.device)
    ]
    strips = []
    for top, bottom, rows in bands(image.shape[-2], exact, image.device):
        strip = rows @ image[..., top:bottom, :].double()  # (..., some of h, W)
        strips.append(
            torch.cat(
                [strip[..., left:right] @ weights for left, right, weights in columns], dim=-1
            ).float()
        )
    return torch.cat(strips, dim=-2)
