"""Which input pixel is nearest to each output pixel, and where in it the output pixel lies.

Both are exact integers of the global grid. The centre of output pixel o lies (2o + 1) q / 2p input
pixels from the image's edge at the scale p/q. Where that is just between two input pixels, the one
before is taken.
"""

from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from tierscale.models.contract.upscaler import Placement


@dataclass(frozen=True, slots=True)
class Axis:
    """The output rows of a window, or its output columns.

    scale: output pixels for each input pixel, p/q. first, count: output rows of the image. origin,
    length: input rows of the window.
    """

    scale: Fraction
    first: int
    count: int
    origin: int
    length: int

    @property
    def regular(self) -> bool:
        """Each input row has the same whole number of output rows, all of them there."""
        p = self.scale.numerator
        return self.scale.denominator == 1 and (self.first, self.count) == (
            self.origin * p,
            self.length * p,
        )

    def source(self) -> Tensor:
        """Row of the window, 0..length - 1, that is nearest to each output row: (count,) int64."""
        p, q = self.scale.numerator, self.scale.denominator
        rows = torch.arange(self.first, self.first + self.count)
        nearest = torch.div((2 * rows + 1) * q - 1, 2 * p, rounding_mode="floor")
        # Rows whose nearest one lies outside the window are in the halo, and what they get does not
        # matter.
        return (nearest - self.origin).clamp_(0, self.length - 1)

    def phase(self) -> Tensor:
        """Which entry of offsets() tells the place of each output row: (count,) int64."""
        return torch.arange(self.first, self.first + self.count) % self.scale.numerator

    def offsets(self) -> Tensor:
        """Place of the output row's centre in its input row, by phase: (p,) float64.

        From above -1 (begin) to 1 (end).
        """
        p, q = self.scale.numerator, self.scale.denominator
        return (((2 * torch.arange(p) + 1) * q - 1) % (2 * p) + 1).double() / p - 1


def axes(place: Placement, index: int, height: int, width: int) -> tuple[Axis, Axis]:
    """Rows and columns of window `index`, `height` by `width` input pixels."""
    spans, origin = place.hr_spans(index, height, width), place.origins[index]
    rows, columns = (
        Axis(place.scale, start, stop - start, origin[dim], length)
        for dim, ((start, stop), length) in enumerate(zip(spans, (height, width), strict=True))
    )
    return rows, columns
