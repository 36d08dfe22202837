"""What tiers leave on photos and on other content: the material that a scout is fitted to."""

import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from models.train.degrade import shrink
from models.train.photos import centre_crop, image_files, read_image
from models.upscaler import Placement, Upscaled

# What enlarges windows (N, 3, h, w) at one effort: an upscaler, or one with its effort bound.
Enlarge = Callable[[Tensor, Placement], Upscaled]


@dataclass(frozen=True, slots=True)
class Sample:
    """One small image and what each tier leaves on it.

    lr: (3, h, w), float32, 0..1. errors: squared error for each input pixel, mean over channels and its output pixels, (T, h, w).
    name: of the photo. variation: which one of it; 0 is the photo as it is.
    """

    lr: Tensor
    errors: Tensor
    name: str = ""
    variation: int = 0


def leave(upscalers: Sequence[Enlarge], lr: Tensor, hr: Tensor, scale: int, name: str = "", variation: int = 0) -> Sample:
    """Enlarge a whole image with every tier and keep where it errs; hr (3, scale * h, scale * w), 0..1."""
    place = Placement.whole((lr.shape[-2], lr.shape[-1]), Fraction(scale))
    maps = []
    with torch.inference_mode():
        for upscaler in upscalers:
            squared = (upscaler(lr[None], place).pixels[0].clamp(0, 1) - hr).square().mean(dim=0, keepdim=True)
            maps.append(F.avg_pool2d(squared, scale))
    return Sample(lr, torch.cat(maps), name, variation)


def _jpeg(image: Tensor, quality: int) -> Tensor:
    """An image (3, h, w), 0..1, after JPEG compression."""
    buffer = io.BytesIO()
    pixels = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1) / 255


def vary(hr: Tensor, scale: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Small and large version of an image (3, H, W), 0..1, made into other content than photos.

    Grey, dark, low in contrast, smooth, finer (shrunk first), noisy, or JPEG compressed; the last two also of the small one alone.
    """
    kind = rng.choice(["grey", "dark", "pale", "smooth", "finer", "finer", "noise", "jpeg"])
    if kind == "grey":
        hr = hr.mean(dim=0, keepdim=True).expand(3, -1, -1)
    elif kind == "dark":
        hr = hr * float(rng.uniform(0.05, 0.6))
    elif kind == "pale":
        hr = float(rng.uniform(0.3, 0.9)) + (hr - 0.5) * float(rng.uniform(0.02, 0.3))
    elif kind == "smooth":
        small = shrink(hr, Fraction(int(rng.integers(4, 17)), 2))
        hr = F.interpolate(small[None], hr.shape[-2:], mode="bicubic", align_corners=False)[0]
    elif kind == "finer":
        hr = centre_crop(shrink(hr, Fraction(int(rng.integers(5, 13)), 4)), scale)
    elif kind == "jpeg":
        hr = _jpeg(hr, int(rng.integers(30, 95)))
    hr = hr.clamp(0, 1)
    if kind == "noise":
        noise = torch.from_numpy(rng.standard_normal(hr.shape, np.float32)) * float(rng.uniform(0.005, 0.08))
        if rng.random() < 0.5:
            hr = (hr + noise).clamp(0, 1)
            return shrink(hr, scale).clamp(0, 1), hr
        lr = shrink(hr, scale)
        return (lr + noise[:, : lr.shape[1], : lr.shape[2]]).clamp(0, 1), hr
    lr = shrink(hr, scale).clamp(0, 1)
    return (_jpeg(lr, int(rng.integers(40, 98))) if kind == "jpeg" and rng.random() < 0.5 else lr), hr


def observe(
    folder: Path,
    upscalers: Sequence[Enlarge],
    scale: int,
    variants: int,
    seed: int,
    limit: float,
    told: Callable[[int, int], None] = lambda done, total: None,
) -> list[Sample]:
    """Samples of all photos as they are and in `variants` variations; stops after `limit` seconds with what it has.

    told: called with (photos done, all). ValueError: no photo is large enough.
    """
    rng, started = np.random.default_rng(seed), time.monotonic()
    samples: list[Sample] = []
    files = image_files(folder)
    for done, index in enumerate(rng.permutation(len(files)), start=1):
        hr = centre_crop(read_image(files[index]), scale) / 255
        if min(hr.shape[-2:]) < 16 * scale:
            continue
        pairs = [(shrink(hr, scale).clamp(0, 1), hr), *(vary(hr, scale, rng) for _ in range(variants))]
        for variation, (lr, large) in enumerate(pairs):
            if min(lr.shape[-2:]) >= 16:
                samples.append(leave(upscalers, lr, large, scale, files[index].name, variation))
        told(done, len(files))
        if time.monotonic() - started > limit:
            break
    if not samples:
        raise ValueError(f"no image in {folder} has {16 * scale} pixels a side, the least to measure at scale {scale}; give larger ones")
    return samples
