"""Scores in, one tier per tile out. Pure functions; nothing here knows an image, a network or a store.

Everywhere, `errors` is (tiles, tiers): the mean squared error (values 0..1) predicted for each tile under each tier,
tiers ordered cheap to dear. Routes are (tiles,) int64 of tier indices.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

# An error of one count in 255, which is about what people can see.
VISIBLE = 1 / 255

CostOf = Callable[[np.ndarray], float]


@dataclass(frozen=True, slots=True)
class Choice:
    """What a policy may need beside the scores.

    costs: multiply-adds per pixel of each tier, rising.
    cost_of: multiply-adds of a whole route, halos included.
    budget: allowed share of the cost of all-dearest, or None.
    threshold: difficulty above which a dearer tier is taken, or None.
    """

    costs: tuple[float, ...]
    cost_of: CostOf
    budget: float | None = None
    threshold: float | None = None


def difficulty(errors: np.ndarray) -> np.ndarray:
    """Predicted error of the cheapest tier less that of the dearest, at least 0; (tiles,)."""
    return np.maximum(errors[:, 0] - errors[:, -1], 0.0)


def check(errors: np.ndarray, columns: int) -> None:
    """Refuse scores that are not finite, naming the first tile; columns: tiles in a row of the image."""
    bad = np.flatnonzero(~np.isfinite(errors).all(axis=1))
    if len(bad):
        row, column = divmod(int(bad[0]), columns)
        raise ValueError(
            f"the scout's score of tile (row {row}, column {column}) is {errors[bad[0]].tolist()}, not a number; check its pixels"
        )


def dearest(errors: np.ndarray, choice: Choice) -> np.ndarray:
    """Every tile to the dearest tier."""
    return np.full(len(errors), errors.shape[1] - 1, np.int64)


def cheapest(errors: np.ndarray, choice: Choice) -> np.ndarray:
    """Every tile to the cheapest tier."""
    return np.zeros(len(errors), np.int64)


def threshold(errors: np.ndarray, choice: Choice) -> np.ndarray:
    """The cheapest tier whose predicted error is at most `threshold` above that of the dearest."""
    if choice.threshold is None or not choice.threshold >= 0:
        raise ValueError(f"policy threshold needs a difficulty of 0 or more, not {choice.threshold}; give --threshold X")
    enough = errors - errors[:, -1:] <= choice.threshold
    return np.argmax(enough, axis=1).astype(np.int64)


def adaptive(errors: np.ndarray, choice: Choice) -> np.ndarray:
    """As many groups of tiles as tiers, found by k-means on the root of the difficulty; the easiest group gets the cheapest tier.

    The root is an error in grey values, the scale on which people see: squares would leave the hard group almost empty.
    Scores are sorted and centroids start evenly spaced, so that neither the order of the tiles nor chance has a say.
    """
    scores = np.sqrt(difficulty(errors))
    tiers = errors.shape[1]
    # A thousandth of the range of values is below what any 8-bit output can show.
    if tiers == 1:
        return np.zeros(len(errors), np.int64)
    if scores.max() - scores.min() < 1e-3:
        # Nothing to tell apart, as in an image of one tile: all are worth the dearest tier, or none is.
        return dearest(errors, choice) if scores.max() > VISIBLE else cheapest(errors, choice)
    scores = (scores - scores.min()) / (scores.max() - scores.min())
    centroids = np.sort(_kmeans(np.sort(scores), np.linspace(0.0, 1.0, tiers)))
    borders = (centroids[1:] + centroids[:-1]) / 2
    return np.searchsorted(borders, scores, side="left").astype(np.int64)


def _kmeans(ordered: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """One-dimensional k-means from given centroids, (k,); empty groups keep their place."""
    # Here, and not above, because torch takes two seconds to import and most readers of this module do not cluster.
    import torch
    from fast_pytorch_kmeans import KMeans

    start = torch.from_numpy(centroids[:, None].copy())
    model = KMeans(n_clusters=len(centroids), mode="euclidean", max_iter=100, tol=1e-10)
    labels = model.fit_predict(torch.from_numpy(ordered[:, None].copy()), centroids=start).numpy()
    return np.array([ordered[labels == k].mean() if (labels == k).any() else centroids[k] for k in range(len(centroids))])


def budget(errors: np.ndarray, choice: Choice) -> np.ndarray:
    """The least predicted error whose cost stays within `budget` times that of all-dearest.

    Each tile may climb the lower convex hull of its (cost, error) points. All steps of all tiles, steepest first, are one
    list (the Lagrangian solution for falling lambda, with ties broken by position); the longest affordable part of it is
    found by bisection. Cost is asked of `cost_of`, because neighbours of one tier share their halo.
    """
    if choice.budget is None or not 0 < choice.budget <= 1:
        raise ValueError(f"policy budget needs a share of the dearest cost above 0 and up to 1, not {choice.budget}; give --budget SHARE")
    allowed = choice.budget * choice.cost_of(dearest(errors, choice))
    if choice.budget == 1:
        return dearest(errors, choice)
    least = choice.cost_of(cheapest(errors, choice))
    if least > allowed:
        share = least / choice.cost_of(dearest(errors, choice))
        raise ValueError(f"a budget of {choice.budget:g} is below the cheapest tier everywhere, which costs {share:.4f}; ask for more")
    tiles, tiers = climb(errors, np.asarray(choice.costs, np.float64))

    def routed(steps: int) -> np.ndarray:
        routes = np.zeros(len(errors), np.int64)
        np.maximum.at(routes, tiles[:steps], tiers[:steps])
        return routes

    low, high = 0, len(tiles) + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if choice.cost_of(routed(middle)) <= allowed else (low, middle)
    return routed(low)


def climb(errors: np.ndarray, costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All worthwhile steps to dearer tiers, best error saved per cost first: tile and the tier it then has, (steps,) each.

    After the worthwhile steps come those that gain nothing by prediction, in order of position, so that a budget of 1 is
    all-dearest and a budget is used up whatever the scout says.
    """
    count, tiers = errors.shape
    found: list[tuple[float, int, int]] = []
    for tile in range(count):
        at = 0
        while at < tiers - 1:
            slopes = (errors[tile, at] - errors[tile, at + 1 :]) / np.maximum(costs[at + 1 :] - costs[at], 1e-12)
            best = int(np.argmax(slopes))
            # Without gain go on one by one: the steps stay in order within a tile because slopes on a hull only fall.
            step = best if slopes[best] > 0 else 0
            gain = max(float(slopes[step]), 0.0)
            at = at + 1 + step
            found.append((-gain, tile, at))
    found.sort()
    return np.array([f[1] for f in found], np.int64), np.array([f[2] for f in found], np.int64)


POLICIES: dict[str, Callable[[np.ndarray, Choice], np.ndarray]] = {
    "adaptive": adaptive,
    "budget": budget,
    "threshold": threshold,
    "dearest": dearest,
    "cheapest": cheapest,
}
