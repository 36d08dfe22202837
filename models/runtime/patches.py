"""A window cut into small square tiles that overlap, and put together again (ClassSR, APE).

The tiles are counted from the corner of the whole image, so that a place belongs to the same tiles
in whichever window it comes.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from tierscale.models.contract.upscaler import Placement
from tierscale.models.runtime.resample import multiply_adds, resample

# Side and step of the tiles of ClassSR (section 4.1), input pixels; APE's patches are cut so, too.
# A window that has SIDE - 1 pixels of context around what is wanted holds every tile that # share
# in it.
SIDE, STEP = 32, 28


def starts(origin: int, length: int, whole: int, side: int, step: int) -> list[int]:
    """First pixel, counted from the window's, of the tiles that lie in a window on one axis.

    The image's last tile slides in to its end. origin, length: of the window; whole: of the image;
    an image smaller than `side` is one tile.
    """
    last = max(0, whole - side)
    first = [*range(0, last, step), last]
    return [
        start - origin
        for start in first
        if origin <= start and min(start + side, whole) <= origin + length
    ]


def blend_weights(first: Sequence[int], side: int, length: int, scale: int) -> Tensor:
    """Weight of each tile in every output pixel of a window on one axis: (tiles, length * scale).

    They add up to one where a tile is. Where two tiles overlap, one fades into the other in a
    straight line over the middle half of the overlap: the outermost pixels of a tile, which suffer
    from the zeros around it, are not used, and there is no step as at the ends of a plain average.
    """
    centre = (torch.arange(length * scale) + 0.5) / scale
    entered = [((centre >= first[0]) & (centre < first[-1] + side)).float()]
    for before, start in pairwise(first):
        entered.append(
            (2 * (centre - start) / (before + side - start) - 0.5).clamp(0, 1) * entered[0]
        )
    return torch.stack(entered) - torch.stack([*entered[1:], torch.zeros_like(entered[0])])


class Patches:
    """The whole tiles in one window of `height` by `width` input pixels.

    first: where they start, rows and columns. sides: their height and width. count: of them, none
    in a window smaller than a tile.
    """

    def __init__(self, place: Placement, height: int, width: int, side: int, step: int) -> None:
        self.size, self.scale = (height, width), place.scale.numerator
        self.sides = (min(side, place.size[0]), min(side, place.size[1]))
        self.first = [
            starts(place.origins[0][axis], self.size[axis], place.size[axis], side, step)
            for axis in (0, 1)
        ]
        self.count = len(self.first[0]) * len(self.first[1])
        if self.count:
            self.weights = [
                blend_weights(self.first[axis], self.sides[axis], self.size[axis], self.scale)
                for axis in (0, 1)
            ]

    @property
    def covers(self) -> bool:
        """Whether every pixel of the window belongs to a tile.

        So it is in a window that is the whole image.
        """
        spans = zip(self.first, self.sides, self.size, strict=True)
        return self.count > 0 and all(
            first[0] == 0 and first[-1] + side == length for first, side, length in spans
        )

    def tiles(self, window: Tensor) -> Tensor:
        """Tiles (count, C, t, t) of a window (1, C, h, w), by rows."""
        rows, columns = (
            torch.tensor(first)[:, None] + torch.arange(side)
            for first, side in zip(self.first, self.sides, strict=True)
        )
        return (
            window[0][:, rows[:, None, :, None], columns[None, :, None, :]]
            .movedim(0, 2)
            .flatten(0, 1)
        )

    def begin(self, window: Tensor, place: Placement) -> tuple[Tensor, float]:
        """What tiles are to be added to, (1, C, H, W), and its multiply-adds.

        Zeros, and a bilinear enlargement of the window (1, C, h, w) where no whole tile lies. Such
        pixels are there as context only.
        """
        height, width = (length * self.scale for length in self.size)
        if self.covers:
            return window.new_zeros(1, window.shape[1], height, width), 0.0
        result = resample(window, place, "bilinear")
        if self.count:
            (top, bottom), (left, right) = (
                (first[0], first[-1] + side)
                for first, side in zip(self.first, self.sides, strict=True)
            )
            result[
                :, :, top * self.scale : bottom * self.scale, left * self.scale : right * self.scale
            ] = 0
        return result, float(
            multiply_adds(window.shape[1], self.size[1], height, width, "bilinear")
        )

    def add(self, result: Tensor, index: int, pixels: Tensor) -> None:
        """Add the output pixels (C, T, T) of tile `index`, weighed, to result (1, C, H, W)."""
        row, column = divmod(index, len(self.first[1]))
        spans = [
            slice(first[at] * self.scale, (first[at] + side) * self.scale)
            for first, side, at in zip(self.first, self.sides, (row, column), strict=True)
        ]
        weight = self.weights[0][row, spans[0], None] * self.weights[1][column, spans[1]]
        result[0, :, spans[0], spans[1]] += pixels * weight.to(pixels.device)

    def spread(self, values: Tensor, outside: int) -> Tensor:
        """The value of the tile that weighs most at each input pixel, (h, w).

        outside: the value where there is no tile.
        """
        if not self.count:
            return values.new_full(self.size, outside)
        most = [part.unflatten(1, (-1, self.scale)).sum(dim=2).max(dim=0) for part in self.weights]
        seen = values.view(len(self.first[0]), -1)[most[0].indices[:, None], most[1].indices]
        return torch.where((most[0].values[:, None] > 0) & (most[1].values > 0), seen, outside)
