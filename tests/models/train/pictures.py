"""Small pictures and a small network to train."""

import numpy as np
import torch

from tierscale.models.contract.checkpoints import ModelSpec
from tierscale.models.train.data.photos import Photo, photo

SMALL = ModelSpec(
    "fsrcnn", 2, {"features": 8, "narrow": 4, "mapping": 1}, (0.4, 0.4, 0.4), "bilinear"
)


def pictures(count: int = 3, side: int = 64) -> list[Photo]:
    """Stripes and ramps at random angles."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side]
    found = []
    for index in range(count):
        waves = [np.sin(a * y + b * x + c) for a, b, c in rng.uniform(-0.8, 0.8, (3, 3))]
        found.append(
            photo(str(index), torch.from_numpy((np.stack(waves) * 120 + 127).astype(np.uint8)), 2)
        )
    return found
