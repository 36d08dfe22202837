"""Bicubic and bilinear enlargement by integer phases of the whole image's grid.

The centre of output pixel o lies at ((2o + 1) q - p) / 2p in input pixels for the scale p/q:
quotient and remainder are exact integers, so a window far from the origin gets the very weights
that the whole image gets.
"""

from collections.abc import Callable
from fractions import Fraction
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor

from tierscale.models.contract.upscaler import Placement

Kernel = Callable[[Tensor], Tensor]

# Output rows that are enlarged along their length at a time: the phases of all rows at once would
# take as much memory as the result.
ROWS = 64


def cubic(distance: Tensor) -> Tensor:
    """Keys' cubic convolution kernel, a = -0.5, which MATLAB's imresize uses; support 2.

    Keys 1981, equation 15.
    """
    d = distance.abs()
    near = 1.5 * d**3 - 2.5 * d**2 + 1
    far = -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
    return torch.where(d <= 1, near, torch.where(d < 2, far, torch.zeros_like(d)))


def triangle(distance: Tensor) -> Tensor:
    """The bilinear kernel; support 1."""
    return (1 - distance.abs()).clamp(min=0)


KERNELS: dict[str, tuple[Kernel, int]] = {"bicubic": (cubic, 2), "bilinear": (triangle, 1)}


def reach(kernel: str) -> int:
    """Input pixels that `kernel` looks at on each side when enlarging."""
    return KERNELS[kernel][1]


def taps(first: int, count: int, scale: Fraction, kernel: str) -> tuple[Tensor, Tensor]:
    """First taps and weights of `count` output pixels from `first` on, on one axis.

    Input index of the first tap (count,), weights (count, 2 * support), float64.
    """
    weigh, support = KERNELS[kernel]
    p, q = scale.numerator, scale.denominator
    position = (2 * torch.arange(first, first + count) + 1) * q - p
    below = torch.div(position, 2 * p, rounding_mode="floor")
    fraction = (position - below * 2 * p).double() / (2 * p)
    steps = torch.arange(1 - support, support + 1, dtype=torch.float64)
    weights = weigh(fraction[:, None] - steps)
    return below + 1 - support, weights / weights.sum(dim=1, keepdim=True)


def resample(windows: Tensor, place: Placement, kernel: str = "bicubic") -> Tensor:
    """Enlarge windows (N, C, h, w) to (N, C, H, W); border pixels are repeated outwards.

    ValueError: not a place for each window.
    """
    if place.scale.denominator == 1:
        scale = place.scale.numerator
        rows = _whole_scale(windows, -2, scale, kernel)
        result = rows.new_empty(*rows.shape[:-1], rows.shape[-1] * scale)
        for row in range(0, rows.shape[-2], ROWS):
            result[..., row : row + ROWS, :] = _whole_scale(
                rows[..., row : row + ROWS, :], -1, scale, kernel
            )
        return result
    if len(windows) != len(place.origins):
        raise ValueError(
            f"{len(windows)} windows cannot lie at {len(place.origins)} places; give the origin of"
            " each"
        )
    height, width = windows.shape[-2:]
    place.hr_shape(height, width)
    return torch.cat(
        [_any_scale(windows[i : i + 1], place, i, kernel) for i in range(len(place.origins))]
    )


def _whole_scale(x: Tensor, dim: int, scale: int, kernel: str) -> Tensor:
    """Enlarge one axis by an integer: each phase is a short sum of shifted slices."""
    length, support = x.shape[dim], KERNELS[kernel][1]
    margin = support + 1
    edges = (0, 0, margin, margin) if dim == -2 else (margin, margin, 0, 0)
    padded = F.pad(x, edges, mode="replicate")
    starts, weights = taps(0, scale, Fraction(scale), kernel)
    phases = []
    for start, weight in zip(starts.tolist(), weights.tolist(), strict=True):
        total = padded.narrow(dim, margin + start, length) * weight[0]
        for step, factor in enumerate(weight[1:], start=1):
            total.add_(padded.narrow(dim, margin + start + step, length), alpha=factor)
        phases.append(total)
    # Interleave: (…, h, w, s) -> (…, h, w * s) for columns, (…, h, s, w) -> (…, h * s, w) for rows.
    return (
        torch.stack(phases, dim=-1).flatten(-2)
        if dim == -1
        else torch.stack(phases, dim=-2).flatten(-3, -2)
    )


def _any_scale(x: Tensor, place: Placement, index: int, kernel: str) -> Tensor:
    """Enlarge window `index` (1, C, h, w) by a fraction, gathering each tap."""
    spans = place.hr_spans(index, *x.shape[-2:])
    for dim, (start, stop), origin in zip((-2, -1), spans, place.origins[index], strict=True):
        length = x.shape[dim]
        first, weights = taps(start, stop - start, place.scale, kernel)
        weights = weights.to(device=x.device, dtype=x.dtype)
        parts = (
            x.index_select(dim, (first - origin + step).clamp(0, length - 1).to(x.device))
            * (weights[:, step, None] if dim == -2 else weights[:, step])
            for step in range(weights.shape[1])
        )
        x = reduce(Tensor.add_, parts)
    return x


def multiply_adds(channels: int, width: int, hr_height: int, hr_width: int, kernel: str) -> int:
    """Multiply-adds of resample() for one window of `width` columns: rows first, then columns."""
    count = 2 * KERNELS[kernel][1]
    return channels * count * (hr_height * width + hr_height * hr_width)
