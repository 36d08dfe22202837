"""Random mixtures of damage, as the photo family is trained on.

Faithful means: the enlarged picture, shrunk again, is the given picture less its damage. Blur,
grain and compression are damage. Sharpening is how a camera or scanner was set, part of the look:
the truth of a sharpened crop is the large picture sharpened alike, with the radius times the scale.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from torch import Tensor

from tierscale.models.train.data.degradations import (
    Codec,
    Grain,
    Step,
    blur,
    coded,
    gaussian,
    grain,
    rounded,
    sharpened,
)

# Range of blur in pixels of the small picture, of grain in levels, of the quality of JPEG and WebP.
BLUR, GRAIN, QUALITY = (0.2, 1.5), (0.0, 15.0), (25, 96)
# Of sharpening: radius in pixels of the small picture, and amount.
RADIUS, AMOUNT = (0.5, 2.0), (0.2, 1.5)
# Share of crops that are left clean.
CLEAN = 1 / 7
# Shares of the others with each damage, and of those coded that are coded a second time.
BLURRED, GRAINY, CODED, TWICE, SHARPENED = 0.4, 0.6, 0.7, 0.1, 0.15
# Shares: of blur that is not isotropic; of grain that is coloured, correlated, stronger where it is
# brighter; of coding that is WebP, without colour subsampling; of damage in another order than
# that of a camera.
ASTRAY, COLOURED, CORRELATED, SIGNAL, WEBP, FULL_COLOUR, SHUFFLED = (
    0.3,
    0.3,
    0.15,
    0.25,
    0.15,
    0.3,
    0.2,
)
# What progress is watched on, in turn.
WATCHED = ("clean", "jpeg50", "grain8", "grain8+jpeg60", "blur1+jpeg60")
# Pixels that a crop is cut larger on each side before it is damaged, so that its border is like any
# other place and the blocks of a codec (16 pixels with colour subsampling) begin anywhere.
MARGIN = 16


@dataclass(frozen=True, slots=True)
class Damage:
    """What happens to one crop: steps in order, and how much of each there is.

    sharpening: radius and amount; it is one of the steps, named because the truth is sharpened as
    well. blur: sigma in pixels, grain: sigma in levels, quality: the lowest of its codings, 100
    without. last: coding, where that is the last step.
    """

    steps: Sequence[Step]
    sharpening: tuple[float, float] | None = None
    blur: float = 0.0
    grain: float = 0.0
    quality: int = 100
    last: Codec | None = None

    def apply(self, levels: Tensor) -> Tensor:
        """A picture (C, h, w) of whole levels with this damage, in whole levels."""
        for step in self.steps:
            levels = step(levels)
        return rounded(levels)


def random_damage(rng: np.random.Generator) -> Damage:
    """A mixture as the photo family is trained on, a seventh of them none."""
    if rng.random() < CLEAN:
        return Damage(())
    steps: list[Step] = []
    sigma = sharpening = None
    grains, codecs = Grain(0.0), [random_codec(rng) for _ in range(2)]
    if rng.random() < BLURRED:
        sigma = random_blur(rng)
        steps.append(partial(blur, kernel=gaussian(*sigma)))
    if rng.random() < GRAINY:
        grains = random_grain(rng)
        steps.append(partial(grain, grains=grains, rng=rng))
    if rng.random() < SHARPENED:
        sharpening = (rng.uniform(*RADIUS), rng.uniform(*AMOUNT))
        steps.append(partial(sharpened, radius=sharpening[0], amount=sharpening[1]))
    first, second = (partial(coded, codec=codec) for codec in codecs)
    if once := rng.random() < CODED:
        steps.append(first)
    if rng.random() < SHUFFLED:
        steps = [steps[index] for index in rng.permutation(len(steps))]
    if twice := rng.random() < TWICE:
        steps.append(second)
    last = steps[-1] if steps else None
    return Damage(
        steps,
        sharpening,
        # The area of an ellipse is that of a circle of this radius.
        blur=math.sqrt(sigma[0] * sigma[1]) if sigma else 0.0,
        grain=grains.sigma,
        quality=min(
            [codec.quality for codec, used in zip(codecs, (once, twice), strict=True) if used],
            default=100,
        ),
        last=codecs[0] if last is first else codecs[1] if last is second else None,
    )


def random_blur(rng: np.random.Generator) -> tuple[float, float, float]:
    """The blur of a lens or of motion: sigma, sigma across, and angle, as gaussian() takes them."""
    sigma = rng.uniform(*BLUR)
    across = rng.uniform(0.0, sigma) if rng.random() < ASTRAY else sigma
    # To a hundredth, so that kernels are found again.
    return round(sigma, 2), round(across, 2), round(rng.uniform(0, math.pi), 1)


def random_grain(rng: np.random.Generator) -> Grain:
    """Grain of a level that is low more often than high."""
    return Grain(
        sigma=GRAIN[0] + (GRAIN[1] - GRAIN[0]) * rng.random() ** 1.3,
        coloured=rng.random() < COLOURED,
        spread=rng.uniform(0.4, 1.0) if rng.random() < CORRELATED else 0.0,
        signal=rng.random() < SIGNAL,
    )


def random_codec(rng: np.random.Generator) -> Codec:
    """A JPEG or a WebP of any quality in QUALITY."""
    return Codec(
        "WEBP" if rng.random() < WEBP else "JPEG",
        int(rng.integers(QUALITY[0], QUALITY[1] + 1)),
        bool(rng.random() < FULL_COLOUR),
    )


def damaged(lr: Tensor, hr: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """The inner part of a pair of crops with a random damage, and what it should become.

    lr: (3, crop + 2 * MARGIN, same), 0..1. hr: uint8, larger by the scale. The results are
    (3, crop, crop), 8 bits as 0..1, and uint8, sharpened where the small one is.
    """
    damage, scale = random_damage(rng), hr.shape[-1] // lr.shape[-1]
    small = damage.apply(rounded(lr * 255)) / 255
    # Where the blocks of a codec begin in the crop is left to chance.
    top, left = (int(rng.integers(1, MARGIN + 1)) for _ in range(2))
    side = lr.shape[-1] - 2 * MARGIN
    if damage.sharpening:
        radius, amount = damage.sharpening
        # Three sigma of the sharpening are enough of a border.
        rim = min(top, left, math.ceil(3 * radius))
        wide = cut(hr, (top - rim) * scale, (left - rim) * scale, (side + 2 * rim) * scale)
        truth = cut(
            sharpened(wide.float(), radius * scale, amount), rim * scale, rim * scale, side * scale
        )
        return cut(small, top, left, side), rounded(truth).to(hr.dtype)
    return cut(small, top, left, side), cut(hr, top * scale, left * scale, side * scale)


def cut(picture: Tensor, top: int, left: int, side: int) -> Tensor:
    """A square part of a picture (C, H, W)."""
    return picture[:, top : top + side, left : left + side]
