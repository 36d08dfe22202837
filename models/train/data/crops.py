"""Random crops of photos and of their shrunk versions, with a damage or without."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from tierscale.models.train.data.photos import Photo

# Damages a pair of crops, see degradations.damaged.
Damaging = Callable[[Tensor, Tensor, np.random.Generator], tuple[Tensor, Tensor]]


def draw(
    photos: Sequence[Photo],
    crop: int,
    batch: int,
    seed: tuple[int, int],
    damaging: tuple[Damaging, int] | None = None,
) -> tuple[Tensor, Tensor]:
    """Random crops, flipped and transposed, float32, 0..1.

    (batch, 3, crop, crop) and (batch, 3, scale * crop, scale * crop). Everything follows from
    `seed` (of the run, step), so that a resumed run draws what the unbroken one would have. Larger
    photos are drawn more often, in proportion to their area. damaging: what damages a pair of
    crops and cuts off the pixels that they are larger by on each side, and how many these are.
    """
    rng = np.random.default_rng(seed)
    damage, margin = damaging or (None, 0)
    wide = crop + 2 * margin
    area = np.array([p.lr[0].numel() for p in photos], dtype=np.float64)
    small, large = [], []
    for index in rng.choice(len(photos), size=batch, p=area / area.sum()):
        lr, hr = photos[index].lr, photos[index].hr
        scale = hr.shape[-1] // lr.shape[-1]
        y, x = (int(rng.integers(size - wide + 1)) for size in lr.shape[-2:])
        pair = (
            lr[:, y : y + wide, x : x + wide],
            hr[:, y * scale : (y + wide) * scale, x * scale : (x + wide) * scale],
        )
        if damage:
            pair = damage(*pair, rng)
        flips = [dim for dim in (-2, -1) if rng.random() < 0.5]
        parts = [part.flip(flips) for part in pair]
        if rng.random() < 0.5:
            parts = [part.transpose(-2, -1) for part in parts]
        small.append(parts[0])
        large.append(parts[1])
    return torch.stack(small), torch.stack(large).float().div_(255)
