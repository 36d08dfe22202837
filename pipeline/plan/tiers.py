"""Tiers as a plan remembers them, and the tiers of a scale that names none."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from tierscale.pipeline.geometry.grid import Surroundings

# EDSR is better than CARN at a third of its cost (docs/choosing.md); the adaptive methods are no
# better at equal cost, reach further beyond each tile and cannot promise a budget. There is no
# EDSR for x2.
DEFAULT_TIERS = {
    Fraction(4): ("bicubic", "edsr-x4", "edsr64-x4"),
    Fraction(3): ("bicubic", "fsrcnn-x3", "edsr-x3"),
    Fraction(2): ("bicubic", "fsrcnn-x2", "carn-x2"),
}
# The same for scans and photos with blur, grain and compression; other scales have none.
PHOTO_TIERS = {Fraction(4): ("bicubic", "edsr-x4-photo")}
# From the smallest scale that it was trained for up to 8, the network of any scale gains 0.9 to
# 4 dB over bicubic (docs/scales.csv).
ANY_SCALE = ("bicubic", "anysr-edsr")
ANY_SCALE_FROM = Fraction(11, 10)
# Scales whose width in AnySR's paper, 0.9, loses at most 0.05 dB against full width; the narrower
# ones of smaller scales lose more (docs/methods.md).
AT_PAPERS_WIDTH = frozenset(Fraction(tenths, 10) for tenths in range(26, 33))
# Context in input pixels of tiers that have no finite reach, because they pool over the window.
ENDLESS_REACH = 32


@dataclass(frozen=True, slots=True)
class Weights:
    """A network by its name and the SHA-256 of its checkpoint, hex."""

    name: str
    weights: str


@dataclass(frozen=True, slots=True)
class Tier:
    """An upscaler held at one effort.

    name: what `models.registry.load` understands. weights: SHA-256 of the checkpoint, hex.
    effort: share of its full computation, 0..1. cost: multiply-adds for each input pixel of a large
    window. reach: input pixels on each side. memory: bytes that enlarging takes for each input
    pixel of a window. auto: written NAME@auto. Where statistics of the image decide, effort and
    cost are the most that it takes; where the scale decides, they are what it takes. multiple:
    windows begin at multiples of so many input pixels.
    """

    name: str
    weights: str
    effort: float
    cost: float
    reach: int
    memory: float
    auto: bool = False
    multiple: int = 1

    @property
    def network(self) -> Weights:
        """The network itself, at whatever effort."""
        return Weights(self.name, self.weights)

    @property
    def surroundings(self) -> Surroundings:
        """What its windows read around what they answer for."""
        return Surroundings(self.reach, self.multiple)

    def filled(self, length: int) -> int:
        """Input pixels that a window of a length counts for: networks fill it up to a multiple."""
        return -(-length // self.multiple) * self.multiple

    @property
    def label(self) -> str:
        """How the tier is written: NAME, NAME@EFFORT below full effort, or NAME@auto."""
        if self.auto:
            return f"{self.name}@auto"
        return self.name if self.effort == 1 else f"{self.name}@{self.effort:g}"


def default_tiers(scale: Fraction, family: str = "clean") -> tuple[str, ...]:
    """Labels of the tiers that a scale gets when none are named, from light to full.

    family: "clean", "photo", or "none" where no network helps.
    """
    if family == "none":
        return ("bicubic",)
    if family == "photo":
        return PHOTO_TIERS[scale]
    if scale in DEFAULT_TIERS:
        return DEFAULT_TIERS[scale]
    if scale in AT_PAPERS_WIDTH:
        return tuple(f"{name}@auto" if name == "anysr-edsr" else name for name in ANY_SCALE)
    return ANY_SCALE if scale >= ANY_SCALE_FROM else ("bicubic",)


# The end of the name of a photo network; what stands before it is its clean twin.
PHOTO = "-photo"


def denoised(labels: Sequence[str], strength: float) -> tuple[str, ...]:
    """Labels of tiers whose photo networks work with a strength of 0 to 1.

    Below 1 their weights are mixed with those of the clean networks that they were trained from.
    """
    if strength == 1:
        return tuple(labels)

    def mixed(label: str) -> str:
        # What is written after the name stays: +8, @EFFORT.
        match = re.fullmatch(rf"([^*:]+){PHOTO}((?:\+\d+)?(?:@.+)?)", label)
        if match is None:
            return label
        clean, after = match.groups()
        if strength == 0:
            return clean + after
        return f"{clean}*{1 - strength:g}+{clean}{PHOTO}*{strength:g}{after}"

    return tuple(map(mixed, labels))


def parse_tiers(text: str) -> tuple[str, ...]:
    """Labels of tiers that are written with commas between them."""
    return tuple(part.strip() for part in text.split(",") if part.strip())
