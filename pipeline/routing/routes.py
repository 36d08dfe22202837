"""The routes of one image: what its plan tells the policies of costs, areas and groups, and of time
where there is a deadline.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tierscale.pipeline.errors import Refused
from tierscale.pipeline.inference.normalise import plane_count
from tierscale.pipeline.plan.plan import Plan
from tierscale.pipeline.routing import policies as routing
from tierscale.pipeline.routing.costs import cost_of_routes, full_cost
from tierscale.pipeline.routing.windows import groups

# Share of a plan's cost below which another plan is worth a remark.
MUCH_LESS = 0.8
# Seconds that an output pixel takes beside its networks: to be read, stitched, written and halved.
EACH = 6e-8


@dataclass(frozen=True, slots=True)
class TimeLimit:
    """How long an image may take. left: asks for the seconds until its end. workers: that share its
    work.

    late: what is past its end goes on with the cheapest tier, as an image in an archive does;
    otherwise it is refused.
    """

    left: Callable[[], float]
    workers: int
    late: bool = False


@dataclass(frozen=True, slots=True)
class TierTimings:
    """A time that routes must keep to, and the seconds for each input pixel that each tier takes on
    one worker.
    """

    clock: TimeLimit
    speeds: tuple[float, ...]


def beside(plan: Plan) -> float:
    """Seconds that an image takes beside its networks."""
    return (
        EACH
        * plane_count(plan.shape[0], plan.colour)
        * plan.grid.size[0]
        * plan.grid.size[1]
        * float(plan.scale) ** 2
    )


def routing_problem(plan: Plan, time: TierTimings | None = None) -> routing.RoutingProblem:
    """What the policies are told of an image; its costs are seconds where there is a time to keep
    to.
    """
    planes, tiers, seconds = plane_count(plan.shape[0], plan.colour), plan.tiers, None
    if time is not None:
        # A dear tier that was measured to be no slower than a cheap one counts as hardly slower.
        rising = (
            np.maximum.accumulate(time.speeds)
            * (1 + 1e-6 * np.arange(len(tiers)))
            / time.clock.workers
        )
        tiers = tuple(
            replace(tier, cost=float(each)) for tier, each in zip(tiers, rising, strict=True)
        )
        seconds = time.clock.left() - beside(plan)
    return routing.RoutingProblem(
        costs=tuple(tier.cost for tier in tiers),
        cost_of=cost_of_routes(plan.grid, tiers, plan.blend, planes),
        budget=plan.policy["budget"],
        threshold=plan.policy["threshold"],
        lose=plan.policy["lose"],
        seconds=seconds,
        areas=areas(plan),
        groups=groups(plan.grid, tiers, plan.blend, planes),
    )


def areas(plan: Plan) -> np.ndarray:
    """Input pixels of each tile, (tiles,)."""
    rows, columns = (
        np.minimum(plan.tile, length - plan.tile * np.arange(count))
        for length, count in zip(plan.grid.size, plan.grid.tiles, strict=True)
    )
    return np.outer(rows, columns).ravel().astype(np.float64)


def route(plan: Plan, scores: np.ndarray, time: TierTimings | None = None) -> np.ndarray:
    """One tier for every tile, (rows, columns), by the plan's policy. scores: (tiles, tiers).
    Refused: what cannot be.
    """
    choice, errors = routing_problem(plan, time), scores.astype(np.float64)
    try:
        routing.check(scores, plan.grid.tiles[1])
        if time is not None and time.clock.late:
            choice = replace(
                choice,
                seconds=max(
                    choice.seconds or 0.0, choice.cost_of(routing.cheapest(errors, choice))
                ),
            )
        routes = routing.POLICIES[plan.policy["name"]](errors, choice)
        # Scattered dear tiles pay their halos one by one: where that costs more than the dearest
        # tier everywhere, take that.
        dearest = routing.dearest(errors, choice)
        if choice.cost_of(routes) > choice.cost_of(dearest):
            routes = dearest
    except ValueError as error:
        raise Refused(str(error)) from error
    return routes.reshape(plan.grid.tiles)


def remarks(plan: Plan) -> list[str]:
    """What is to be said of a plan's routes."""
    assert plan.routes is not None
    if len(plan.tiers) == 1:
        return []
    cheapest, dearest = plan.tiers[0].label, plan.tiers[-1].label
    if plan.policy["name"] == "quality" and (plan.routes == len(plan.tiers) - 1).all():
        return [
            f"nothing that costs less stays within {plan.policy['lose']:g} dB of {dearest} by"
            " prediction: it makes every tile"
        ]
    if plan.policy["name"] == "deadline" and (plan.routes == 0).all():
        return [f"the deadline leaves no time for more than {cheapest}: it makes every tile"]
    return []


def better(
    plan: Plan, found: Sequence[tuple[float, float]], share: float, loss: float
) -> list[str]:
    """A remark where a budget is predicted to do as well as a plan for much less: policies that
    look at each tile by itself do not know that scattered tiles pay their halos. found: curve().
    share, loss: of the plan, as of the curve.
    """
    cheaper = min((one for one, other in found if other <= loss), default=share)
    if plan.policy["name"] not in ("adaptive", "threshold") or cheaper > MUCH_LESS * share:
        return []
    return [
        f"--budget {routing.rounded_up(cheaper)} is predicted to lose no more than these"
        f" {share:.0%} of the dearest cost: policy {plan.policy['name']} does not know that"
        " scattered tiles pay for their surroundings"
    ]


def lost(plan: Plan, scores: np.ndarray, routes: np.ndarray) -> float:
    """dB that routes (tiles,) are predicted to lose against the dearest tier everywhere; scores
    (tiles, tiers) of a scout.
    """
    weights, errors = areas(plan), scores.astype(np.float64)
    left, best = (
        float((weights * found).sum())
        for found in (
            np.take_along_axis(errors, routes.reshape(-1, 1), axis=1)[:, 0],
            errors[:, -1],
        )
    )
    return 10 * float(np.log10(max(left, 1e-12) / max(best, 1e-12)))


def curve(plan: Plan, scores: np.ndarray, shares: Sequence[float]) -> list[tuple[float, float]]:
    """What budgets are predicted to lose: share of the dearest cost, and dB below the dearest tier
    everywhere; cheapest tier first.
    """
    choice, errors, most = routing_problem(plan), scores.astype(np.float64), full_cost(plan)
    cheapest = routing.cheapest(errors, choice)
    least = choice.cost_of(cheapest)
    found = [
        cheapest,
        *(routing.within(errors, choice, share * most) for share in shares if share * most > least),
    ]
    points = [(choice.cost_of(routes) / most, lost(plan, scores, routes)) for routes in found]
    return list(dict.fromkeys(points))  # in an image of few tiles, several budgets buy the same
