"""What routing knows of an image: what tiers cost, and which tiles may share their halos.

Everywhere in this package `errors` is (tiles, tiers): the mean squared error (values 0..1) that is
predicted for each tile under each tier, tiers from light to full. Routes are (tiles,) int64 of tier
indices. What cannot be done is a ValueError.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

CostOf = Callable[[np.ndarray], float]


class TileGroups(Protocol):
    """Tiles that may share their halos."""

    def least(self, errors: np.ndarray, price: float) -> np.ndarray:
        """Routes with the least sum of errors + price * cost."""
        ...

    def cost(self, routes: np.ndarray) -> float:
        """What routes cost, as far as it is quickly computed."""
        ...

    def together(self, tiles: np.ndarray, worth: np.ndarray) -> np.ndarray:
        """Tiles in order of worth, those of one group after each other."""
        ...


@dataclass(frozen=True, slots=True)
class RoutingProblem:
    """What routes cost in one image.

    costs: of a pixel under each tier, rising; multiply-adds, or seconds where a time is to be kept.
    cost_of: cost of a whole route, halos included, in the same unit. areas: input pixels of each
    tile, (tiles,); None: all alike. groups: which tiles may share their halos; None: each pays its
    own.
    """

    costs: tuple[float, ...]
    cost_of: CostOf
    areas: np.ndarray | None = None
    groups: TileGroups | None = None

    def weigh(self, errors: np.ndarray) -> np.ndarray:
        """Errors times the tiles' areas, which add up to the image's: (tiles, tiers)."""
        return errors if self.areas is None else errors * self.areas[:, None]

    def work(self, tiles: int) -> np.ndarray:
        """What each of `tiles` tiles costs by each tier, halos apart: (tiles, tiers)."""
        return np.outer(np.ones(tiles) if self.areas is None else self.areas, self.costs)


def all_full(errors: np.ndarray) -> np.ndarray:
    """Every tile to the full tier."""
    return np.full(len(errors), errors.shape[1] - 1, np.int64)


def all_light(errors: np.ndarray) -> np.ndarray:
    """Every tile to the first tier."""
    return np.zeros(len(errors), np.int64)


def total(weighed: np.ndarray, routes: np.ndarray) -> float:
    """The sum of weighed errors, (tiles, tiers), under routes."""
    return float(np.take_along_axis(weighed, routes[:, None], axis=1).sum())


def check_scores(errors: np.ndarray, columns: int) -> None:
    """ValueError naming the first tile whose score is not finite; columns: tiles in a row."""
    bad = np.flatnonzero(~np.isfinite(errors).all(axis=1))
    if len(bad):
        row, column = divmod(int(bad[0]), columns)
        raise ValueError(
            f"the score of tile (row {row}, column {column}) is {errors[bad[0]].tolist()},"
            " not a number; check its pixels"
        )


def round_up(share: float) -> str:
    """A share above 0 in three digits, rounded up, so that who asks for what is written gets it."""
    unit = 10.0 ** (np.floor(np.log10(share)) - 2)
    return f"{min(1.0, np.ceil(share / unit) * unit):.3g}"
