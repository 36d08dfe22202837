"""PSNR and SSIM as the project measures them.

On RGB, both images rounded to 8 bit, `shave` pixels left out at each border.
"""

import math

import torch
from torch import Tensor


def _counts(image: Tensor, shave: int) -> Tensor:
    """Values 0..1 (C, H, W) as whole counts 0..255, float64, without the border."""
    height, width = image.shape[-2:]
    if min(height, width) <= 2 * shave:
        raise ValueError(
            f"an image of {height}x{width} has nothing left after shaving {shave} pixels on each"
            " side; use a smaller shave"
        )
    inner = image[..., shave : height - shave, shave : width - shave]
    return (inner.double() * 255).round().clamp(0, 255)


def psnr(result: Tensor, truth: Tensor, shave: int) -> float:
    """Peak signal-to-noise ratio in dB of images (C, H, W), values 0..1.

    Infinity where they are equal. ValueError: nothing is left after shaving.
    """
    error = (_counts(result, shave) - _counts(truth, shave)).square().mean().item()
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def ssim(result: Tensor, truth: Tensor, shave: int) -> float:
    """Structural similarity of images (C, H, W), values 0..1, as a mean over channels.

    Wang et al. 2004, "Image quality assessment", equation 13: Gaussian window of 11 pixels,
    standard deviation 1.5, only where it lies inside; K1 = 0.01, K2 = 0.03. ValueError: fewer than
    11 pixels a side are left.
    """
    a, b = _counts(result, shave), _counts(truth, shave)
    if min(a.shape[-2:]) < 11:
        raise ValueError(
            f"SSIM needs at least 11 pixels a side after shaving, not {a.shape[-2]}x{a.shape[-1]};"
            " use a larger image"
        )
    weights = torch.exp(-((torch.arange(11, dtype=torch.float64) - 5) ** 2) / (2 * 1.5**2))
    bell: list[float] = (weights / weights.sum()).tolist()

    def local(x: Tensor) -> Tensor:
        height, width = x.shape[-2] - 10, x.shape[-1] - 10
        rows = torch.stack(
            [weight * x[:, step : step + height] for step, weight in enumerate(bell)]
        ).sum(dim=0)
        return torch.stack(
            [weight * rows[:, :, step : step + width] for step, weight in enumerate(bell)]
        ).sum(dim=0)

    mean_a, mean_b = local(a), local(b)
    var_a, var_b = local(a * a) - mean_a**2, local(b * b) - mean_b**2
    both = local(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    similar = (
        (2 * mean_a * mean_b + c1)
        * (2 * both + c2)
        / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    )
    return similar.mean().item()
