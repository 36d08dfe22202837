"""Shrinking as MATLAB's imresize does it: antialiased bicubic, symmetric border; the degradation that the protocol is defined by."""

from fractions import Fraction
from functools import lru_cache

import torch
from torch import Tensor

from models.resample import cubic


def shrunk_length(length: int, scale: Fraction) -> int:
    """Pixels that `length` pixels become when shrunk by `scale`: rounded up, as imresize does."""
    return -(-length * scale.denominator // scale.numerator)


@lru_cache(maxsize=256)
def shrink_matrix(length: int, scale: Fraction) -> Tensor:
    """Weights (shrunk_length, length), float64, each row adding up to one.

    The cubic kernel (a = -0.5) is widened by `scale` against aliasing; beyond the border the image is mirrored with the
    border pixel repeated.
    """
    count, factor = shrunk_length(length, scale), float(scale)
    centres = (torch.arange(count, dtype=torch.float64) + 0.5) * factor - 0.5
    span = int(4 * factor) + 3
    taps = torch.floor(centres - 2 * factor).long()[:, None] + torch.arange(span)
    weights = cubic((centres[:, None] - taps) / factor)
    weights = weights / weights.sum(dim=1, keepdim=True)
    folded = taps.remainder(2 * length)
    folded = torch.where(folded < length, folded, 2 * length - 1 - folded)
    return torch.zeros(count, length, dtype=torch.float64).scatter_add_(1, folded, weights)


def shrink(image: Tensor, scale: Fraction | int) -> Tensor:
    """Shrink image (..., H, W) by `scale` >= 1 to (..., ceil(H / scale), ceil(W / scale)); dtype float32, not rounded, not clamped."""
    exact = Fraction(scale)
    if exact < 1:
        raise ValueError(f"cannot shrink by {exact}, which would enlarge; give a scale of at least 1")
    rows, columns = (shrink_matrix(length, exact).to(image.device) for length in image.shape[-2:])
    return (rows @ image.double() @ columns.T).float()
