"""What scans and photos suffer on their way: blur, grain, JPEG, WebP, and sharpening.

Measured by `tierscale evaluate --degrade KIND`; the photo family is trained against random
mixtures. All of it happens to the small picture, in its own pixels, whatever the scale.

Faithful means here: the enlarged picture, shrunk again, is the given picture less its damage. Blur,
grain and compression are damage. Sharpening is how a camera or scanner was set, part of the look:
the truth of a sharpened crop is the large picture sharpened alike, with the radius times the scale.
"""

import io
import math
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

# Of a picture (1 or 3, h, w), float32, levels 0..255 that may overshoot: the picture damaged.
Step = Callable[[Tensor], Tensor]

DAMAGE = re.compile(r"(blur|grain|jpeg)(\d+(?:\.\d+)?)")


def parse_degradation(text: str) -> tuple[tuple[str, float], ...]:
    """A degradation such as "blur1+grain4+jpeg60" as (damage, strength), in order; "clean" as none.

    ValueError: it is none, or a JPEG quality is not a whole number of 1 to 100.
    """
    steps = []
    for part in text.split("+") if text != "clean" else []:
        match = DAMAGE.fullmatch(part)
        if match is None or (match[1] == "jpeg" and match[2] not in map(str, range(1, 101))):
            raise ValueError(
                f"there is no degradation {part!r}; give clean, or blurS (sigma in pixels), grainS"
                " (levels) and jpegQ (quality 1 to 100), joined by +, such as blur1+grain4+jpeg60"
            )
        steps.append((match[1], float(match[2])))
    return tuple(steps)


def degrade(picture: Tensor, text: str, rng: np.random.Generator) -> Tensor:
    """A picture (1 or 3, h, w), 0..1, degraded as text says; 8 bits, as 0..1.

    text: see parse_degradation(). The picture is brought to 8 bits first. Blur is Gaussian, grain
    grey and Gaussian, JPEG as Pillow writes it unless told otherwise (colour at half the
    resolution).
    """
    damages: dict[str, Callable[[float], Step]] = {
        "blur": lambda sigma: partial(blur, kernel=gaussian(sigma, sigma, 0.0)),
        "grain": lambda sigma: partial(grain, grains=Grain(sigma), rng=rng),
        "jpeg": lambda quality: partial(coded, codec=Codec("JPEG", int(quality))),
    }
    levels = rounded(picture * 255)
    for damage, strength in parse_degradation(text):
        levels = damages[damage](strength)(levels)
    return rounded(levels) / 255


def seeded(name: str) -> np.random.Generator:
    """The source of chance of a file: equal for equal names."""
    return np.random.default_rng(zlib.crc32(name.encode()))


def rounded(levels: Tensor) -> Tensor:
    """Whole levels 0..255, as float."""
    return levels.round().clamp(0, 255)


@lru_cache(maxsize=256)
def gaussian(sigma: float, across: float, angle: float) -> Tensor:
    """A Gaussian kernel (k, k), float32, adding up to one.

    sigma, across: in pixels, along `angle` (radians) and across it; 0 is none.
    """
    radius = max(1, math.ceil(3 * max(sigma, across)))
    y, x = torch.meshgrid(
        *[torch.arange(-radius, radius + 1, dtype=torch.float64)] * 2, indexing="ij"
    )
    along, beside = (
        math.cos(angle) * x + math.sin(angle) * y,
        math.cos(angle) * y - math.sin(angle) * x,
    )
    kernel = torch.exp(
        -0.5 * ((along / max(sigma, 1e-3)).square() + (beside / max(across, 1e-3)).square())
    )
    return (kernel / kernel.sum()).float()


def blur(levels: Tensor, kernel: Tensor) -> Tensor:
    """A picture (C, h, w) convolved with a kernel (k, k); the border pixel is repeated."""
    radius = kernel.shape[-1] // 2
    padded = F.pad(levels[:, None], (radius,) * 4, mode="replicate")
    return F.conv2d(padded, kernel[None, None])[:, 0]


def smoothed(levels: Tensor, sigma: float) -> Tensor:
    """A picture (C, h, w) blurred by an isotropic Gaussian of sigma pixels, row by column."""
    radius = max(1, math.ceil(3 * sigma))
    taps = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma).square())
    taps = taps / taps.sum()
    padded = F.pad(levels[:, None], (radius,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, taps[None, None, None]), taps[None, None, :, None])[:, 0]


def sharpened(levels: Tensor, radius: float, amount: float) -> Tensor:
    """Unsharp masking as cameras and scanners do it: picture + amount * (picture - smoothed)."""
    return levels + amount * (levels - smoothed(levels, radius))


@dataclass(frozen=True, slots=True)
class Grain:
    """Noise of a sensor, grain of a film.

    sigma: standard deviation in levels. coloured: another one in each channel. spread: in pixels,
    over which it is correlated; 0: not at all. signal: grows with the square root of the level, as
    photons do, and is sigma at white.
    """

    sigma: float
    coloured: bool = False
    spread: float = 0.0
    signal: bool = False


def grain(levels: Tensor, grains: Grain, rng: np.random.Generator) -> Tensor:
    """A picture (1 or 3, h, w) with noise added, not clipped."""
    count = len(levels) if grains.coloured else 1
    noise = torch.from_numpy(rng.standard_normal((count, *levels.shape[1:]), dtype=np.float32))
    if grains.spread:
        noise = smoothed(noise, grains.spread)
        noise = noise / noise.std().clamp(min=1e-6)
    strength = (levels / 255).clamp(0, 1).sqrt() if grains.signal else 1.0
    return levels + grains.sigma * strength * noise


@dataclass(frozen=True, slots=True)
class Codec:
    """A lossy file: format JPEG or WEBP, quality 1 to 100, colour at half the resolution or not.

    WebP has no choice of the latter.
    """

    format: str
    quality: int
    full_colour: bool = False


def coded(levels: Tensor, codec: Codec) -> Tensor:
    """A picture (1 or 3, h, w) written to a lossy file and read again."""
    pixels = rounded(levels).to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    grey = pixels.shape[2] == 1
    file = io.BytesIO()
    options = {"subsampling": 0} if codec.full_colour and codec.format == "JPEG" else {}
    # WebP's slowest search for the same quality is of no use in training.
    speed = {"method": 2} if codec.format == "WEBP" else {}
    Image.fromarray(pixels[..., 0] if grey else pixels).save(
        file, codec.format, quality=codec.quality, **options, **speed
    )
    decoded = np.array(Image.open(file).convert("L" if grey else "RGB"))
    return torch.from_numpy(decoded.reshape(pixels.shape)).permute(2, 0, 1).float()
