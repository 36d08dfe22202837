"""NAME+8: the mean of a network's results on its input flipped and turned, each turned back.

Lim, Son, Kim, Nah and Lee 2017, EDSR, section 3.3, geometric self-ensemble. A network's error
depends on which way up its input lies; the mean of all eight ways leaves a part of it out, for
eight times the cost and without any training.
"""

from collections.abc import Mapping
from fractions import Fraction

import torch
from torch import Tensor

from tierscale.models.contract.efforts import Efforts
from tierscale.models.contract.upscaler import Placement, Upscaled, Upscaler

# How often a network is run -> which turns: bit 0 flips columns, bit 1 rows, bit 2 transposes then.
# Of two and four those are taken that differ most.
TURNS = {2: (0, 7), 4: (0, 3, 4, 7), 8: tuple(range(8))}
# A grid of a fractional scale is not the same from its other end.
WHOLE_SCALES = frozenset(Fraction(scale) for scale in range(2, 9))


def turn(pixels: Tensor, way: int) -> Tensor:
    """Pixels (N, C, H, W) turned in one of eight ways."""
    flips = [dim for bit, dim in ((1, -1), (2, -2)) if way & bit]
    flipped = pixels.flip(flips)
    return flipped.transpose(-2, -1).contiguous() if way & 4 else flipped


def turn_back(pixels: Tensor, way: int) -> Tensor:
    """The inverse of turn()."""
    straight = pixels.transpose(-2, -1) if way & 4 else pixels
    return straight.flip([dim for bit, dim in ((1, -1), (2, -2)) if way & bit])


def turn_placement(place: Placement, shape: tuple[int, int], way: int) -> Placement:
    """Where windows of a shape (height, width) lie when the whole image is turned with them."""
    (rows, columns), (height, width) = place.size, shape
    origins = tuple(
        (
            rows - top - height if way & 2 else top,
            columns - left - width if way & 1 else left,
        )
        for top, left in place.origins
    )
    if way & 4:
        return Placement(place.scale, (columns, rows), tuple((x, y) for y, x in origins))
    return Placement(place.scale, place.size, origins)


class Turned:
    """An upscaler that runs another one on several turns of its windows and takes the mean.

    upscaler: of whole scales. count: 2, 4 or 8. ValueError: another count.
    """

    def __init__(self, upscaler: Upscaler, count: int) -> None:
        if count not in TURNS:
            raise ValueError(
                f"+{count} is not a number of turns; give one of +2, +4 and +8, or none"
            )
        self.upscaler, self.ways = upscaler, TURNS[count]
        self.scales: frozenset[Fraction] | None = (
            WHOLE_SCALES if upscaler.scales is None else upscaler.scales & WHOLE_SCALES
        )
        self.reach, self.parameters = upscaler.reach, upscaler.parameters
        self.control: str | None = upscaler.control
        self.efforts: Efforts | None = upscaler.efforts

    def __call__(
        self,
        windows: Tensor,
        place: Placement,
        effort: float = 1.0,
        settings: Mapping[str, float] = {},
    ) -> Upscaled:
        if Fraction(place.scale).denominator != 1:
            raise ValueError(
                f"turned networks enlarge by whole numbers, not by {place.scale}; leave the"
                f" +{len(self.ways)} out"
            )
        shape = (windows.shape[2], windows.shape[3])
        pixels = windows.new_zeros(*windows.shape[:2], *place.hr_shape(*shape))
        macs = torch.zeros(len(windows), dtype=torch.float64)
        for way in self.ways:
            result = self.upscaler(
                turn(windows, way), turn_placement(place, shape, way), effort, settings
            )
            pixels += turn_back(result.pixels, way)
            macs += result.macs
        return Upscaled(pixels.div_(len(self.ways)), macs)

    def to(self, device: str) -> "Turned":
        """Move the weights, in place."""
        self.upscaler = self.upscaler.to(device)
        return self

    @property
    def has_bfloat16(self) -> bool:
        """As the upscaler that it turns."""
        return self.upscaler.has_bfloat16

    def to_bfloat16(self) -> "Turned":
        """The weights and maps of the upscaler that it turns; the mean stays float32."""
        self.upscaler = self.upscaler.to_bfloat16()
        return self

    def cost(self, scale: Fraction, effort: float = 1.0) -> float:
        """Multiply-adds for each input pixel of a large window."""
        return len(self.ways) * self.upscaler.cost(scale, effort)

    def memory(self, scale: Fraction) -> float:
        """Bytes for each input pixel of a window: two results and a turned window more."""
        return self.upscaler.memory(scale) + 12 * (2 * float(scale) ** 2 + 2)
