"""One budget for many images: all their tiles share one price of work, so that easy scans pay for
hard ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tierscale.pipeline.errors import Refused
from tierscale.pipeline.output import kept_scores as scores
from tierscale.pipeline.output import report
from tierscale.pipeline.plan.plan import Plan
from tierscale.pipeline.routing import policies as routing
from tierscale.pipeline.routing.policies import Grouped, RoutingProblem
from tierscale.pipeline.routing.routes import routing_problem
from tierscale.pipeline.run import draft as prepare
from tierscale.pipeline.run.run import Run
from tierscale.pipeline.storage.lease import Lease
from tierscale.pipeline.storage.paths import remove_tree


@dataclass(frozen=True, slots=True)
class Looked:
    """An image after its pre-pass. plan: without routes, or as it was stored. found: its scores,
    (tiles, tiers).
    """

    plan: Plan
    found: np.ndarray


@dataclass(frozen=True, slots=True)
class Joint:
    """The groups of several images, one after another. tiles: of each image."""

    parts: tuple[Grouped, ...]
    tiles: tuple[int, ...]

    def split(self, values: np.ndarray) -> list[np.ndarray]:
        """Values of all tiles, image by image."""
        return np.split(values, np.cumsum(self.tiles)[:-1])

    def cheapest(self, errors: np.ndarray, price: float) -> np.ndarray:
        """Routes with the least sum of errors + price * cost."""
        return np.concatenate(
            [
                part.cheapest(own, price)
                for part, own in zip(self.parts, self.split(errors), strict=True)
            ]
        )

    def cost(self, routes: np.ndarray) -> float:
        """What routes cost, strips left out."""
        return sum(part.cost(own) for part, own in zip(self.parts, self.split(routes), strict=True))

    def together(self, tiles: np.ndarray, worth: np.ndarray) -> np.ndarray:
        """Tiles in order of worth, those of one image after each other: images by the mean of
        theirs.
        """
        first = np.cumsum((0, *self.tiles))
        found: list[tuple[float, np.ndarray]] = []
        for index, part in enumerate(self.parts):
            mine = (tiles >= first[index]) & (tiles < first[index + 1])
            if mine.any():
                found.append(
                    (
                        -float(worth[mine].mean()),
                        first[index] + part.together(tiles[mine] - first[index], worth[mine]),
                    )
                )
        return (
            np.concatenate([order for _, order in sorted(found, key=lambda entry: entry[0])])
            if found
            else tiles
        )


def look(run: Run) -> Looked:
    """The scores of an image: of its stored plan, as they were kept, or found now and kept until
    its plan is stored.

    What was ingested to be looked at is not kept, or an archive would lie on the disk twice. Raises
    Refused, Damaged, Interrupted.
    """
    request = run.request
    prepare.check_paths(request.source, request.output)
    draft, facts = prepare.draft(
        request.source, request.options, request.max_memory, run.pool.device, run.pool.width
    )
    with Lease(run.folder.path):
        plan = run.stored(draft)
        if plan is not None:
            return Looked(plan, report.read_scores(run.folder.path, len(plan.tiers)))
        known = scores.kept(run.folder.path, draft)
        if known is None:
            known = run.look(draft, facts, run.folder.path)
            scores.keep(run.folder.path, *known)
            remove_tree(run.folder.path / "source.zarr")
    try:
        routing.check(known[1], known[0].grid.tiles[1])
    except ValueError as error:
        raise Refused(str(error)) from error
    return Looked(*known)


def share_out(images: Sequence[Looked], share: float) -> list[np.ndarray]:
    """Routes (rows, columns) of images with the same tiers, whose cost together is at most `share`
    of all-dearest.

    Images with a stored plan keep its routes. Where all that differs from an earlier call is that
    some plans were stored since, the routes are the same. Refused: the share is less than the
    cheapest tier everywhere takes.
    """
    choices = [routing_problem(image.plan) for image in images]
    allowed = share * sum(
        choice.cost_of(routing.dearest(image.found, choice))
        for image, choice in zip(images, choices, strict=True)
    )
    routes = _solve(images, choices, allowed, share)
    kept = [image.plan.routes for image in images]
    if all(
        own is None or np.array_equal(own, made) for own, made in zip(kept, routes, strict=True)
    ):
        return routes
    # Other images were in the archive when the stored plans were made: the rest has what they
    # leave.
    rest = [index for index, own in enumerate(kept) if own is None]
    macs = sum(
        choice.cost_of(own.ravel())
        for choice, own in zip(choices, kept, strict=True)
        if own is not None
    )
    again = (
        _solve(
            [images[index] for index in rest],
            [choices[index] for index in rest],
            allowed - macs,
            share,
        )
        if rest
        else []
    )
    for index, made in zip(rest, again, strict=True):
        kept[index] = made
    return [own for own in kept if own is not None]


def _solve(
    images: Sequence[Looked], choices: Sequence[RoutingProblem], allowed: float, share: float
) -> list[np.ndarray]:
    """Routes of images with the least predicted error at a cost of `allowed`. Refused: it is too
    little.
    """
    tiles = tuple(len(image.found) for image in images)
    joint = Joint(tuple(choice.groups for choice in choices if choice.groups is not None), tiles)

    def cost_of(routes: np.ndarray) -> float:
        return sum(
            choice.cost_of(own) for choice, own in zip(choices, joint.split(routes), strict=True)
        )

    errors = np.concatenate([image.found.astype(np.float64) for image in images])
    areas = np.concatenate([choice.areas for choice in choices if choice.areas is not None])
    choice = RoutingProblem(choices[0].costs, cost_of, areas=areas, groups=joint)
    dearest, cheapest = routing.dearest(errors, choice), routing.cheapest(errors, choice)
    if share == 1:
        routes = dearest
    elif cost_of(cheapest) > allowed:
        least = share * cost_of(cheapest) / allowed if allowed > 0 else 1.0
        raise Refused(
            f"a budget of {share:g} for the archive is below the cheapest tier everywhere; ask for"
            f" {routing.rounded_up(least)} or more"
        )
    else:
        routes = routing.within(errors, choice, allowed)
    return [
        own.reshape(image.plan.grid.tiles)
        for own, image in zip(joint.split(routes), images, strict=True)
    ]
