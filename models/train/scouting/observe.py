"""What tiers leave on photos and on other content: the material that a scout is fitted to."""

import io
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from tierscale.models.contract.upscaler import Placement, Upscaled
from tierscale.models.train.data.photos import centre_crop, image_files, read_image
from tierscale.models.train.data.shrink import shrink

# Share of the difference between enlargements in what a scout is fitted to, see leave(): on photos
# held back as good as none, better than all of it, on other content better than either. Figures in
# docs/decisions/scout.md.
TRUST = 0.5

# What enlarges windows (N, 3, h, w) at one effort: an upscaler, or one with its effort bound.
Enlarge = Callable[[Tensor, Placement], Upscaled]


@dataclass(frozen=True, slots=True)
class Sample:
    """One small image and what each tier leaves on it.

    lr: (3, h, w), float32, 0..1. errors: squared error for each input pixel, mean over channels and
    its output pixels, (T, h, w). expected: errors that are to be predicted, of the same shape.
    name: of the photo. variation: which one of it; 0 is the photo as it is.
    """

    lr: Tensor
    errors: Tensor
    expected: Tensor
    name: str = ""
    variation: int = 0


def leave(
    upscalers: Sequence[Enlarge], lr: Tensor, hr: Tensor, scale: Fraction, trust: float = TRUST
) -> Sample:
    """Enlarge a whole image with every tier and keep where it errs.

    lr (3, h, w), hr (3, scale * h, scale * w), 0..1. Where the scale is a fraction, an output pixel
    that lies in two input pixels counts in both.

    What a tier errs more than the full one is, on the average over all images that could be behind
    the small one, the squared difference of the two enlargements, if the full one gives the mean of
    those images. One image is one draw, full of chance; the difference has none, but the full
    network is no such mean. `trust` is the share of the difference in what is expected.
    """
    size = (lr.shape[-2], lr.shape[-1])
    place = Placement.whole(size, scale)
    with torch.inference_mode():
        results = [upscaler(lr[None], place).pixels[0].clamp(0, 1) for upscaler in upscalers]
        errors, apart = (
            torch.stack(
                [
                    F.adaptive_avg_pool2d((one - other).square().mean(dim=0, keepdim=True), size)[0]
                    for one in results
                ]
            )
            for other in (hr, results[-1])
        )
    return Sample(lr, errors, (1 - trust) * errors + trust * (apart + errors[-1]))


def _jpeg(image: Tensor, quality: int) -> Tensor:
    """An image (3, h, w), 0..1, after JPEG compression."""
    buffer = io.BytesIO()
    pixels = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1) / 255


def vary(hr: Tensor, scale: Fraction, rng: np.random.Generator) -> tuple[Tensor, Tensor, bool]:
    """Small and large version of an image (3, H, W), 0..1, made into other content.

    And whether the small one is a clean one of the large. Mostly finer (shrunk first), every other
    time turned too; sometimes grey, dark, low in contrast, smooth, noisy, or JPEG compressed, the
    last two also of the small one alone. More of those would be learnt at the cost of the clean
    ones: noise looks like texture.
    """
    kind = rng.choice(
        ["finer", "turned", "grey", "dark", "pale", "smooth", "noise", "jpeg"],
        p=[0.45, 0.45, *[0.1 / 6] * 6],
    )
    if kind == "grey":
        hr = hr.mean(dim=0, keepdim=True).expand(3, -1, -1)
    elif kind == "dark":
        hr = hr * float(rng.uniform(0.05, 0.6))
    elif kind == "pale":
        hr = float(rng.uniform(0.3, 0.9)) + (hr - 0.5) * float(rng.uniform(0.02, 0.3))
    elif kind == "smooth":
        small = shrink(hr, Fraction(int(rng.integers(4, 17)), 2))
        hr = F.interpolate(small[None], hr.shape[-2:], mode="bicubic", align_corners=False)[0]
    elif kind in ("finer", "turned"):
        source = _turn(hr, float(rng.uniform(5, 85))) if kind == "turned" else hr
        finer = centre_crop(shrink(source, Fraction(int(rng.integers(9, 21)), 8)), scale.numerator)
        # Of a small image nothing is left where the scale's numerator is large.
        hr = finer if finer.numel() else hr
    elif kind == "jpeg":
        hr = _jpeg(hr, int(rng.integers(30, 95)))
    hr = hr.clamp(0, 1)
    lr = shrink(hr, scale).clamp(0, 1)
    if kind not in ("noise", "jpeg"):
        return lr, hr, True
    alone = rng.random() < 0.5
    if kind == "jpeg":
        return (_jpeg(lr, int(rng.integers(40, 98))) if alone else lr), hr, False
    noise = torch.from_numpy(rng.standard_normal(hr.shape, np.float32)) * float(
        rng.uniform(0.005, 0.08)
    )
    if alone:
        return (lr + noise[:, : lr.shape[1], : lr.shape[2]]).clamp(0, 1), hr, False
    hr = (hr + noise).clamp(0, 1)
    return shrink(hr, scale).clamp(0, 1), hr, False


def _turn(image: Tensor, degrees: float) -> Tensor:
    """The middle of an image (3, H, W), 0..1, turned.

    A square that is within the image at any angle.
    """
    turned = Image.fromarray(
        (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    ).rotate(degrees, Image.Resampling.BICUBIC)
    side = int(min(image.shape[-2:]) / 2**0.5)
    top, left = ((length - side) // 2 for length in image.shape[-2:])
    return (
        torch.from_numpy(np.array(turned))[top : top + side, left : left + side].permute(2, 0, 1)
        / 255
    )


@dataclass(frozen=True, slots=True)
class Observing:
    """How photos are observed.

    variants: variations of each photo, beside the photo as it is. seconds: when to stop with what
    there is. seed: of the photos' order and of the variations.
    """

    variants: int
    seconds: float
    seed: int = 0


def observe(
    folder: Path,
    upscalers: Sequence[Enlarge],
    scale: Fraction,
    how: Observing,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Sample]:
    """Samples of all photos as they are and in variations, or of those that there was time for.

    progress: called with (photos done, all). ValueError: no photo is large enough.
    """
    rng, started = np.random.default_rng(how.seed), time.monotonic()
    samples: list[Sample] = []
    files = image_files(folder)
    for done, index in enumerate(rng.permutation(len(files)), start=1):
        hr = centre_crop(read_image(files[index]), scale.numerator) / 255
        if min(hr.shape[-2:]) < 16 * scale:
            continue
        versions = [
            (shrink(hr, scale).clamp(0, 1), hr, True),
            *(vary(hr, scale, rng) for _ in range(how.variants)),
        ]
        for variation, (lr, large, clean) in enumerate(versions):
            if min(lr.shape[-2:]) >= 16:
                sample = leave(upscalers, lr, large, scale, TRUST if clean else 0.0)
                samples.append(replace(sample, name=files[index].name, variation=variation))
        progress(done, len(files))
        if time.monotonic() - started > how.seconds:
            break
    if not samples:
        least = scale.numerator * math.ceil(16 / scale.denominator)
        raise ValueError(
            f"no image in {folder} has {least} pixels a side, the least to measure at scale"
            f" {scale}; give larger ones"
        )
    return samples
