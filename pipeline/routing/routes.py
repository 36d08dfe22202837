"""The routes of one image: what its draft tells the policies of costs, areas, groups and time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tierscale.pipeline.errors import Refused
from tierscale.pipeline.plan.plan import Draft, Plan, ScoredPlan
from tierscale.pipeline.plan.policies import Adaptive, Deadline, MaxLoss, Policy, Threshold
from tierscale.pipeline.routing.audit import at_most, loss_db
from tierscale.pipeline.routing.costs import areas, cost_of_routes, fixed_cost, full_cost
from tierscale.pipeline.routing.policies import choose
from tierscale.pipeline.routing.problem import (
    RoutingProblem,
    all_full,
    all_light,
    check_scores,
    round_up,
)
from tierscale.pipeline.routing.solver import least_error
from tierscale.pipeline.routing.windows import groups

# Share of a plan's cost below which another plan is worth a remark.
MUCH_LESS = 0.8
# Seconds that an output pixel takes beside its networks: to be read, stitched, written and halved.
PIXEL_SECONDS = 6e-8


@dataclass(frozen=True, slots=True)
class TimeLimit:
    """How long an image may take.

    left: asks for the seconds until the end. workers: that share the work. late: past the end the
    image goes on with the first tier, as one of an archive does; otherwise it is refused.
    """

    left: Callable[[], float]
    workers: int
    late: bool = False


@dataclass(frozen=True, slots=True)
class TierTimings:
    """A time that routes must keep, and seconds for each input pixel of each tier on one worker."""

    limit: TimeLimit
    speeds: tuple[float, ...]


def seconds_beside_networks(draft: Draft) -> float:
    """Seconds of one worker that an image takes beside its networks."""
    height, width = draft.grid.size
    return PIXEL_SECONDS * draft.rgb_count * height * width * float(draft.scale) ** 2


def routing_problem(draft: Draft, timings: TierTimings | None = None) -> RoutingProblem:
    """What the policies know of an image; costs are seconds where there is a time to keep."""
    tiers = draft.tiers
    if timings is not None:
        # A dear tier that was measured to be no slower than a cheap one counts as hardly slower.
        rising = np.maximum.accumulate(timings.speeds) * (1 + 1e-6 * np.arange(len(tiers)))
        each = rising / timings.limit.workers
        tiers = tuple(
            replace(tier, cost=float(seconds)) for tier, seconds in zip(tiers, each, strict=True)
        )
    return RoutingProblem(
        costs=tuple(tier.cost for tier in tiers),
        cost_of=cost_of_routes(draft.grid, tiers, draft.blend, draft.rgb_count),
        areas=areas(draft),
        groups=groups(draft.grid, tiers, draft.blend, draft.rgb_count),
    )


def route(scored: ScoredPlan, timings: TierTimings | None = None) -> np.ndarray:
    """One tier for every tile, (rows, columns), by the plan's policy. Refused: it cannot be."""
    problem, errors = routing_problem(scored, timings), scored.scores.astype(np.float64)
    try:
        check_scores(scored.scores, scored.grid.tiles[1])
        seconds = None if timings is None else _seconds(scored, timings, problem)
        routes = routes_of(scored.policy, scored, errors, problem, seconds)
    except ValueError as error:
        raise Refused(str(error)) from error
    return routes.reshape(scored.grid.tiles)


def routes_of(
    policy: Policy,
    scored: ScoredPlan,
    errors: np.ndarray,
    problem: RoutingProblem,
    seconds: float | None = None,
) -> np.ndarray:
    """The routes (tiles,) of a policy for an image. ValueError: they cannot be had.

    Scattered tiles pay their halos one by one: where that costs more than the full tier everywhere,
    it is that. A loss is held at the upper end of what is known of it, and where nothing is saved
    with the fixed costs of each shard and tier, all tiles get the full tier.
    """
    full, fixed = all_full(errors), 0.0
    if isinstance(policy, MaxLoss):
        routes = choose(policy, at_most(errors, scored.evidence), problem, seconds)
        fixed = fixed_cost(scored, routes) - fixed_cost(scored, full)
    else:
        routes = choose(policy, errors, problem, seconds)
    return full if problem.cost_of(routes) + fixed > problem.cost_of(full) else routes


def _seconds(scored: ScoredPlan, timings: TierTimings, problem: RoutingProblem) -> float:
    """What the networks may take until the end; of an image that may be late, never too little."""
    seconds = timings.limit.left() - seconds_beside_networks(scored)
    return (
        max(seconds, problem.cost_of(all_light(scored.scores))) if timings.limit.late else seconds
    )


def remarks(plan: Plan) -> list[str]:
    """What is to be said of a plan's routes."""
    if len(plan.tiers) == 1:
        return []
    light, full = plan.tiers[0].label, plan.tiers[-1].label
    if isinstance(plan.policy, MaxLoss) and (plan.routes == plan.full).all():
        return [
            f"nothing that costs less is predicted to stay within {plan.policy.db:g} dB of {full}:"
            " it makes every tile"
        ]
    if isinstance(plan.policy, Deadline) and (plan.routes == 0).all():
        return [f"the deadline leaves no time for more than {light}: it makes every tile"]
    return []


def better_budget(
    plan: Plan, alternatives: Sequence[tuple[float, float]], share: float, loss: float
) -> list[str]:
    """A remark where a budget is predicted to do as well as a plan for much less.

    Policies that judge each tile by itself do not know that scattered tiles pay their halos.
    alternatives: of curve(). share, loss: of the plan, in the same units.
    """
    cheaper = min((one for one, other in alternatives if other <= loss), default=share)
    if not isinstance(plan.policy, Adaptive | Threshold) or cheaper > MUCH_LESS * share:
        return []
    return [
        f"--budget {round_up(cheaper)} is predicted to lose no more than these {share:.0%} of the"
        f" full cost: policy {plan.policy.name} does not know that scattered tiles pay for their"
        " surroundings"
    ]


def curve(draft: Draft, scores: np.ndarray, shares: Sequence[float]) -> list[tuple[float, float]]:
    """What budgets are predicted to lose: [(share of the full cost, dB)], the first tier first."""
    problem, errors, most = routing_problem(draft), scores.astype(np.float64), full_cost(draft)
    light = all_light(errors)
    least = problem.cost_of(light)
    found = [light]
    found += [
        least_error(errors, problem, share * most) for share in shares if share * most > least
    ]
    points = [(problem.cost_of(routes) / most, loss_db(draft, errors, routes)) for routes in found]
    return list(dict.fromkeys(points))  # in an image of few tiles, several budgets buy the same
