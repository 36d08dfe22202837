"""How hard tiles are, told from their pixels alone: what a network adds to bicubic enlargement.

For networks trained for the mean of all images that could be behind the small one, what network b
saves over a is, on average, the squared difference of their results:
E|x - a|^2 - E|x - b|^2 = E|a - b|^2 when b is the mean of x given the input. No truth is needed.
A light network's own difference from bicubic ranks tiles nearly as well as that of a dear one.
"""

from fractions import Fraction

import torch
from torch import Tensor

from tierscale.models.contract.upscaler import Placement, Upscaler
from tierscale.models.runtime.resample import resample

# Input pixels at the edge of what is enlarged that are not compared: there a network sees less than
# it needs.
RIM = 4


def local_energy(tiles: Tensor) -> Tensor:
    """Mean squared differences of neighbouring pixels, along both axes, of tiles (N, C, h, w).

    (N,). Where there is no network to compare with bicubic, it ranks tiles.
    """
    energy = tiles.new_zeros(len(tiles))
    for axis in (-2, -1):
        if tiles.shape[axis] > 1:
            energy = energy + tiles.diff(dim=axis).square().mean(dim=(1, 2, 3))
    return energy


def difference(network: Upscaler, tiles: Tensor, scale: Fraction) -> Tensor:
    """Mean squared difference of a network's results from bicubic of tiles (N, 3, h, w), 0..1.

    (N,). Each tile is enlarged alone, without its surroundings; its rim is left out where it is
    large enough.
    """
    place = Placement(scale, (tiles.shape[-2], tiles.shape[-1]), ((0, 0),) * len(tiles))
    with torch.inference_mode():
        made = network(tiles, place).pixels.clamp(0, 1)
        plain = resample(tiles, place, "bicubic").clamp_(0, 1)
        apart = made.sub_(plain).square_()
        if min(tiles.shape[-2:]) >= 4 * RIM:
            rim = int(RIM * scale)
            apart = apart[..., rim:-rim, rim:-rim]
        return apart.mean(dim=(1, 2, 3))
