"""How large the steps are where tiers meet, for tests and for benchmarks."""

from fractions import Fraction
from unittest import mock

import numpy as np
import skimage.data
import torch

from tierscale.models import registry
from tierscale.models.contract.upscaler import Placement
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.run.array import enlarge_array, work

COFFEE = skimage.data.coffee().transpose(2, 0, 1)


def whole(name, image, scale):
    """The network on the whole image in one piece: (c, H, W), float."""
    window = torch.from_numpy(image[None].astype(np.float32))
    place = Placement.whole(image.shape[1:], Fraction(scale))
    return registry.load(name)(window, place).pixels[0].numpy()


def diagonals(scored, timings):
    """Routes that pay no heed to the picture: tiers 0, 1, 2 in diagonals.

    Scores would put borders where they show least.
    """
    return np.add.outer(*map(np.arange, scored.grid.tiles)) % 3


def steps(image, blend):
    """Mean step across borders of tiers, over the mean step one input pixel beside them.

    Within an input pixel the steps of any enlargement differ by phase: bicubic alone, untiled, has
    steps at the edges of input pixels that are 1.15 times those one output pixel beside. So the
    pixel beside is an input pixel, where the phase is the same.
    """
    options = Options(tiers=("bicubic", "fsrcnn-x4", "carn-x4"), tile=32, blend=blend)
    with mock.patch.object(work, "route", diagonals):
        made = enlarge_array(image, options)
    assert set(made.plan.routes.ravel().tolist()) == {0, 1, 2}
    across, beside = [], []
    for pixels, routes in (
        (made.pixels.astype(float), made.plan.routes),
        (made.pixels.astype(float).transpose(0, 2, 1), made.plan.routes.T),
    ):
        for row, column in np.argwhere(routes[:, 1:] != routes[:, :-1]):
            edge = 128 * (column + 1)
            step = np.abs(
                np.diff(pixels[:, row * 128 : row * 128 + 128, edge - 5 : edge + 5], axis=2)
            ).mean(axis=(0, 1))
            across.append(step[4])
            beside.extend((step[0], step[8]))
    assert len(across) >= 20
    return np.mean(across) / np.mean(beside)
