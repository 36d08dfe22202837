"""One budget for many images: all their tiles share one price of work, so that easy scans pay for
hard ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tierscale.pipeline.errors import Refused
from tierscale.pipeline.plan.plan import Draft
from tierscale.pipeline.routing.problem import (
    RoutingProblem,
    TileGroups,
    all_full,
    all_light,
    round_up,
)
from tierscale.pipeline.routing.routes import routing_problem
from tierscale.pipeline.routing.solver import least_error


@dataclass(frozen=True, slots=True)
class ScoredImage:
    """An image of the archive after its prescan.

    plan: what is known of it. scores: (tiles, tiers). routes: (rows, columns) of a plan that is
    stored already and keeps them; None: they are to be chosen.
    """

    plan: Draft
    scores: np.ndarray
    routes: np.ndarray | None


@dataclass(frozen=True, slots=True)
class JointGroups:
    """The groups of several images, one after another. tiles: of each image."""

    parts: tuple[TileGroups, ...]
    tiles: tuple[int, ...]

    def split(self, values: np.ndarray) -> list[np.ndarray]:
        """Values of all tiles, image by image."""
        return np.split(values, np.cumsum(self.tiles)[:-1])

    def least(self, errors: np.ndarray, price: float) -> np.ndarray:
        """Routes with the least sum of errors + price * cost."""
        pairs = zip(self.parts, self.split(errors), strict=True)
        return np.concatenate([part.least(own, price) for part, own in pairs])

    def cost(self, routes: np.ndarray) -> float:
        """What routes cost, strips left out."""
        pairs = zip(self.parts, self.split(routes), strict=True)
        return sum(part.cost(own) for part, own in pairs)

    def together(self, tiles: np.ndarray, worth: np.ndarray) -> np.ndarray:
        """Tiles in order of worth, those of one image after each other: images by their mean."""
        first = np.cumsum((0, *self.tiles))
        orders: list[tuple[float, np.ndarray]] = []
        for index, part in enumerate(self.parts):
            mine = (tiles >= first[index]) & (tiles < first[index + 1])
            if mine.any():
                order = first[index] + part.together(tiles[mine] - first[index], worth[mine])
                orders.append((-float(worth[mine].mean()), order))
        orders.sort(key=lambda entry: entry[0])
        return np.concatenate([order for _, order in orders]) if orders else tiles


def split_budget(images: Sequence[ScoredImage], share: float) -> list[np.ndarray]:
    """Routes (rows, columns) of images with the same tiers, together within a share of full cost.

    Images with a stored plan keep its routes. Where all that differs from an earlier call is that
    some plans were stored since, the routes are the same. Refused: the share is less than the first
    tier takes everywhere.
    """
    problems = [routing_problem(image.plan) for image in images]
    allowed = share * sum(
        problem.cost_of(all_full(image.scores))
        for image, problem in zip(images, problems, strict=True)
    )
    solved = _solve(images, problems, allowed, share)
    if all(
        image.routes is None or np.array_equal(image.routes, routes)
        for image, routes in zip(images, solved, strict=True)
    ):
        return solved
    return _around_stored(images, problems, allowed, share)


def _around_stored(
    images: Sequence[ScoredImage],
    problems: Sequence[RoutingProblem],
    allowed: float,
    share: float,
) -> list[np.ndarray]:
    """Routes where other images were in the archive when the stored plans were made.

    Stored plans keep their routes; the rest has what they leave.
    """
    routes = {index: image.routes for index, image in enumerate(images) if image.routes is not None}
    used = sum(problems[index].cost_of(own.ravel()) for index, own in routes.items())
    rest = [index for index in range(len(images)) if index not in routes]
    if rest:
        chosen = [images[index] for index in rest], [problems[index] for index in rest]
        routes.update(zip(rest, _solve(*chosen, allowed - used, share), strict=True))
    return [routes[index] for index in range(len(images))]


def _solve(
    images: Sequence[ScoredImage],
    problems: Sequence[RoutingProblem],
    allowed: float,
    share: float,
) -> list[np.ndarray]:
    """Routes of images with the least predicted error at a cost of `allowed`, or Refused."""
    tiles = tuple(len(image.scores) for image in images)
    joint = JointGroups(
        tuple(problem.groups for problem in problems if problem.groups is not None), tiles
    )

    def cost_of(routes: np.ndarray) -> float:
        pairs = zip(problems, joint.split(routes), strict=True)
        return sum(problem.cost_of(own) for problem, own in pairs)

    errors = np.concatenate([image.scores.astype(np.float64) for image in images])
    areas = np.concatenate([one.areas for one in problems if one.areas is not None])
    problem = RoutingProblem(problems[0].costs, cost_of, areas=areas, groups=joint)
    least = cost_of(all_light(errors))
    if share == 1:
        routes = all_full(errors)
    elif least > allowed:
        enough = share * least / allowed if allowed > 0 else 1.0
        raise Refused(
            f"a budget of {share:g} for the archive is less than the first tier costs everywhere;"
            f" ask for {round_up(enough)} or more"
        )
    else:
        routes = least_error(errors, problem, allowed)
    return [
        own.reshape(image.plan.grid.tiles)
        for own, image in zip(joint.split(routes), images, strict=True)
    ]
