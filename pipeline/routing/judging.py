"""How good a router is: what its routes leave, against a perfect router and against chance."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tierscale.pipeline.routing.policies import budget
from tierscale.pipeline.routing.problem import RoutingProblem


@dataclass(frozen=True, slots=True)
class Judged:
    """A router at one budget.

    left: mean squared error that its routes leave; chance, oracle: what the other two leave at the
    same cost. captured: share of the oracle's gain over chance; 1 where there is nothing to gain.
    """

    left: float
    chance: float
    oracle: float

    @property
    def captured(self) -> float:
        return (
            (self.chance - self.left) / (self.chance - self.oracle)
            if self.chance > self.oracle
            else 1.0
        )


def judge(
    predicted: np.ndarray, true: np.ndarray, areas: np.ndarray, costs: Sequence[float], share: float
) -> Judged:
    """What a router's predictions are worth at a mean cost of `share` of the full cost.

    Each tile pays for its own pixels. predicted, true: errors (tiles, tiers). areas: pixels of the
    tiles (tiles,). costs: of a pixel under each tier, rising.
    """
    return Judged(
        leave(predicted, true, areas, costs, share),
        chance(true, areas, costs, share),
        leave(true, true, areas, costs, share),
    )


def leave(
    predicted: np.ndarray, true: np.ndarray, areas: np.ndarray, costs: Sequence[float], share: float
) -> float:
    """Mean true error of the routes with the least predicted error."""
    each = areas[:, None] * np.asarray(costs)

    def cost_of(routes: np.ndarray) -> float:
        return float(np.take_along_axis(each, routes[:, None], axis=1).sum())

    problem = RoutingProblem(tuple(costs), cost_of, areas=areas)
    routes = budget(predicted.astype(np.float64), problem, share)
    return float(areas @ np.take_along_axis(true, routes[:, None], axis=1)[:, 0] / areas.sum())


def chance(true: np.ndarray, areas: np.ndarray, costs: Sequence[float], share: float) -> float:
    """Expected error of the best mixture of two tiers, or one, on tiles drawn by lot."""
    means, parts = areas @ true / areas.sum(), np.asarray(costs) / costs[-1]
    best = means[parts <= share].min()
    for low in np.flatnonzero(parts <= share):
        for high in np.flatnonzero(parts > share):
            lot = (share - parts[low]) / (parts[high] - parts[low])
            best = min(best, (1 - lot) * means[low] + lot * means[high])
    return float(best)
