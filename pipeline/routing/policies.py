"""Scores in, one tier per tile out: what each policy does. Pure functions of arrays.

See `problem` for the shapes of `errors` and routes.
"""

import numpy as np

from tierscale.pipeline.plan.policies import (
    Adaptive,
    Budget,
    Deadline,
    Full,
    Light,
    MaxLoss,
    Policy,
    Threshold,
)
from tierscale.pipeline.routing.problem import RoutingProblem, all_full, all_light, round_up
from tierscale.pipeline.routing.solver import least_cost, least_error

# An error of one count in 255, which is about what people can see.
VISIBLE = 1 / 255
# Differences in the root of the difficulty that are none: below what any 8-bit output can show.
ALIKE = 1e-3


def choose(
    policy: Policy, errors: np.ndarray, problem: RoutingProblem, seconds: float | None = None
) -> np.ndarray:
    """The routes (tiles,) of a policy. ValueError: they cannot be had.

    seconds: what policy deadline may take; the costs of `problem` are then seconds.
    """
    match policy:
        case Full():
            return all_full(errors)
        case Light():
            return all_light(errors)
        case Adaptive():
            return adaptive(errors)
        case Threshold(gap):
            return threshold(errors, gap)
        case MaxLoss(db):
            return least_cost(errors, problem, db)
        case Budget(share):
            return budget(errors, problem, share)
        case Deadline():
            return deadline(errors, problem, policy.seconds if seconds is None else seconds)


def difficulty(errors: np.ndarray) -> np.ndarray:
    """Predicted error of the first tier less that of the full tier, at least 0; (tiles,)."""
    saved: np.ndarray = np.maximum(errors[:, 0] - errors[:, -1], 0.0)
    return saved


def threshold(errors: np.ndarray, gap: float) -> np.ndarray:
    """The first tier whose predicted error is at most `gap` above that of the full tier."""
    routes: np.ndarray = np.argmax(errors - errors[:, -1:] <= gap, axis=1)
    return routes.astype(np.int64)


def adaptive(errors: np.ndarray) -> np.ndarray:
    """As many groups of tiles as tiers, by k-means on the root of the difficulty.

    The easiest group gets the first tier. The root is an error in grey values, the scale on which
    people see: squares would leave the hard group almost empty. Scores are sorted and centroids
    start evenly spaced, so that neither the order of the tiles nor chance has a say.
    """
    scores = np.sqrt(difficulty(errors))
    tiers = errors.shape[1]
    if tiers == 1:
        return all_light(errors)
    if scores.max() - scores.min() < ALIKE:
        # Nothing to tell apart, as in an image of one tile: all are worth the full tier, or none.
        return all_full(errors) if scores.max() > VISIBLE else all_light(errors)
    scores = (scores - scores.min()) / (scores.max() - scores.min())
    centroids = np.sort(_kmeans(np.sort(scores), np.linspace(0.0, 1.0, tiers)))
    borders = (centroids[1:] + centroids[:-1]) / 2
    routes: np.ndarray = np.searchsorted(borders, scores, side="left")
    return routes.astype(np.int64)


def _kmeans(ordered: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """One-dimensional k-means from given centroids, (k,); empty groups keep their place."""
    # Imported here because torch takes two seconds, and most readers of this module do not cluster.
    import torch
    from fast_pytorch_kmeans import KMeans

    start = torch.from_numpy(centroids[:, None].copy())
    model = KMeans(n_clusters=len(centroids), mode="euclidean", max_iter=100, tol=1e-10)
    labels = model.fit_predict(torch.from_numpy(ordered[:, None].copy()), centroids=start).numpy()
    means = [
        ordered[labels == group].mean() if (labels == group).any() else centroid
        for group, centroid in enumerate(centroids)
    ]
    return np.array(means)


def budget(errors: np.ndarray, problem: RoutingProblem, share: float) -> np.ndarray:
    """The least predicted error whose cost is at most `share` of the full tier everywhere."""
    if share == 1:
        return all_full(errors)
    most, least = problem.cost_of(all_full(errors)), problem.cost_of(all_light(errors))
    if least > share * most:
        raise ValueError(
            f"a budget of {share:g} is less than the first tier costs everywhere, which is"
            f" {round_up(least / most)}; ask for that or more"
        )
    return least_error(errors, problem, share * most)


def deadline(errors: np.ndarray, problem: RoutingProblem, seconds: float) -> np.ndarray:
    """The least predicted error that takes at most `seconds`; costs are seconds."""
    least = problem.cost_of(all_light(errors))
    if least > seconds:
        raise ValueError(
            f"{max(seconds, 0):.3g} seconds are too few: the first tier everywhere takes about"
            f" {least:.3g}; give more time, more workers, or a lighter tier"
        )
    return least_error(errors, problem, seconds)
