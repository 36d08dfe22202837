"""What other policies would do with an image that is scored."""

from dataclasses import dataclass

import numpy as np

from tierscale.pipeline.plan.plan import Plan, ScoredPlan
from tierscale.pipeline.plan.policies import Budget, Full, Light, MaxLoss, Policy, in_words
from tierscale.pipeline.routing.audit import loss_db
from tierscale.pipeline.routing.costs import full_cost
from tierscale.pipeline.routing.routes import routes_of, routing_problem, seconds_beside_networks
from tierscale.pipeline.run.resources import START_SECONDS, Outlook

# Policies that a plan is compared with.
OTHERS: tuple[Policy, ...] = (
    Light(),
    *(Budget(share) for share in (0.25, 0.5)),
    *(MaxLoss(db) for db in (0.1, 0.05, 0.02)),
    Full(),
)


@dataclass(frozen=True, slots=True)
class Alternative:
    """What another policy would do with an image.

    policy: in words. cost_share: of the full tier everywhere. loss_db: predicted, against it.
    """

    policy: str
    cost_share: float
    seconds: float
    loss_db: float


def alternatives(plan: Plan, scored: ScoredPlan, ahead: Outlook) -> list[Alternative]:
    """What other policies would do, in order of cost."""
    problem, errors, most = routing_problem(plan), scored.scores.astype(np.float64), full_cost(plan)
    fixed = START_SECONDS + seconds_beside_networks(plan)
    found = []
    for policy in OTHERS:
        try:
            routes = routes_of(policy, scored, errors, problem)
        except ValueError:  # the first tier everywhere costs more than the budget
            continue
        share = problem.cost_of(routes) / most
        seconds = fixed + (ahead.seconds_estimate - fixed) * share / ahead.cost_share
        loss = loss_db(plan, errors, routes)
        found.append(
            Alternative(in_words(policy), round(share, 4), round(seconds, 1), round(loss, 4))
        )
    return sorted(found, key=lambda one: one.cost_share)
