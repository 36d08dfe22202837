"""The least predicted error for a cost, and the least cost for a predicted error.

One price of work is the same for all tiles: each takes the tier with the least error + price * cost
(the Lagrangian solution), the price being found by bisection.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from tierscale.pipeline.routing.problem import RoutingProblem, all_full, all_light, total

# Halvings of an interval of prices; after these its ends are equal, and what their routes differ in
# are ties.
HALVINGS = 50
HIGHEST = 1e200
# Share of the full cost that may be left unused, and how many single tiles are tried to use more.
SLACK, TRIED = 0.01, 2000
# Up to so many tiles, budgets are tried for a cheaper way to a quality; so often is what they may
# save halved. In an image of more tiles the two ways differ by less than a hundredth.
FEW, TRIALS = 400, 7

Fits = Callable[[np.ndarray], bool]


def least_error(errors: np.ndarray, problem: RoutingProblem, allowed: float) -> np.ndarray:
    """Routes with the least predicted error whose cost is at most `allowed`.

    The first tier everywhere must fit. What the best price leaves of `allowed` goes to tiles that
    the next lower price would give a dearer tier, those with the most error saved for their cost
    first, ties by position. Nothing is spent where nothing is saved.
    """

    def fits(routes: np.ndarray) -> bool:
        return problem.cost_of(routes) <= allowed

    found = []
    groups = problem.groups
    for form in _forms(problem):
        # To lay out all windows takes a hundred times as long as to tell their cost without strips,
        # which is nearly right.
        guess = None
        if groups is not None:
            guess = bracket(errors, form, lambda routes: groups.cost(routes) <= allowed).price
        ends = bracket(errors, form, fits, guess)
        order = _order(errors, form, ends.fits, ends.fails)
        saving = errors[order, ends.fits[order]] > errors[order, ends.fails[order]]
        found.append(fill(ends.fits, ends.fails, order[saving], fits))
    weighed = problem.weigh(errors)
    best = min(found, key=lambda routes: total(weighed, routes))
    return top_up(errors, problem, best, allowed)


def least_cost(errors: np.ndarray, problem: RoutingProblem, db: float) -> np.ndarray:
    """Routes with the least cost whose predicted error is at most `db` dB above that of the full
    tier everywhere.
    """
    weighed = problem.weigh(errors)
    allowed = float(weighed[:, -1].sum() * 10 ** (db / 10) * (1 + 1e-12))

    def good(routes: np.ndarray) -> bool:
        return total(weighed, routes) <= allowed

    best, least = all_full(errors), all_light(errors)
    if good(least):
        return least
    for form in _forms(problem):
        ends = bracket(errors, form, lambda routes: not good(routes))
        order = _order(errors, form, ends.fits, ends.fails)[::-1]
        routes = fill(ends.fails, ends.fits, order, good)
        best = min(best, routes, key=problem.cost_of)
    low, high = problem.cost_of(least), problem.cost_of(best)
    for _ in range(TRIALS if len(errors) <= FEW else 0):
        middle = (low + high) / 2
        routes = least_error(errors, problem, middle)
        if good(routes):
            best, high = routes, problem.cost_of(routes)
        else:
            low = middle
    return best


def _forms(problem: RoutingProblem) -> list[RoutingProblem]:
    """Ways to count the same tiles: in groups that share their halos, and each alone.

    In an image of few shards single tiles may fit where no whole group does.
    """
    return [problem] if problem.groups is None else [problem, replace(problem, groups=None)]


def top_up(
    errors: np.ndarray, problem: RoutingProblem, routes: np.ndarray, allowed: float
) -> np.ndarray:
    """Routes that leave more than a hundredth of the full cost unused, with single tiles given
    dearer tiers as long as one fits.

    The price of work is the same for all tiles, so in an image of few tiles the next one at that
    price may be too dear where others fit.
    """
    routes, cost = routes.copy(), problem.cost_of(routes)
    enough = allowed - SLACK * problem.cost_of(all_full(errors))
    if cost > enough:
        return routes
    places = _by_worth(errors, problem, routes)
    # A tile that did not fit may, once its neighbour is as dear and they share a halo: so again
    # from the first, as long as one did.
    tries, again = TRIED, True
    while again:
        again = False
        for tile, tier in zip(*np.unravel_index(places[:tries], errors.shape), strict=True):
            if tier <= routes[tile]:
                continue
            tries -= 1
            before, routes[tile] = routes[tile], tier
            cost = problem.cost_of(routes)
            if cost > allowed:
                routes[tile] = before
                continue
            if cost > enough:
                return routes
            again = True
    return routes


def _by_worth(errors: np.ndarray, problem: RoutingProblem, routes: np.ndarray) -> np.ndarray:
    """Flat places (tile, tier) of dearer tiers that save error, the most for their cost first."""
    weighed, work, now = problem.weigh(errors), problem.work(len(errors)), routes[:, None]
    saved = np.take_along_axis(weighed, now, axis=1) - weighed
    more = work - np.take_along_axis(work, now, axis=1)
    dearer = np.arange(errors.shape[1]) > now
    worth = np.where(dearer & (saved > 0), saved / np.maximum(more, 1e-300), -1.0)
    return np.argsort(-worth, axis=None, kind="stable")[: int((worth >= 0).sum())]


def priced(errors: np.ndarray, problem: RoutingProblem, price: float) -> np.ndarray:
    """Each tile's tier with the least error + price * cost; of equal ones the cheaper.

    price: error for each unit of cost.
    """
    weighed = problem.weigh(errors)
    if problem.groups is not None:
        return problem.groups.least(weighed, price)
    routes: np.ndarray = np.argmin(weighed + price * problem.work(len(errors)), axis=1)
    return routes.astype(np.int64)


@dataclass(frozen=True, slots=True)
class Bracket:
    """Two prices next to each other.

    fits: routes of the higher one, which fit; fails: of the lower one; price: the higher one.
    """

    fits: np.ndarray
    fails: np.ndarray
    price: float


def bracket(
    errors: np.ndarray, problem: RoutingProblem, fits: Fits, guess: float | None = None
) -> Bracket:
    """Where the routes at rising prices begin to fit.

    fits: true of the first tier everywhere. guess: a price near by. Where what is best at no price
    at all fits too, those that fail are the full tier everywhere.
    """
    free = priced(errors, problem, 0.0)
    if fits(free):
        return Bracket(free, all_full(errors), 0.0)

    def at(price: float) -> np.ndarray:
        # Some windows cost next to nothing more than their parts: to them hardly any price is too
        # high.
        if price > HIGHEST:
            return all_light(errors)
        return free if price < 1 / HIGHEST else priced(errors, problem, price)

    most = float((errors.max(axis=1) - errors.min(axis=1)).max())
    # In seconds a tier may take less than the one before it.
    steps = [step for step in np.diff(problem.costs) if step > 0]
    centre, ratio = float(guess or most / min(steps, default=1.0)), 1.01
    # A cost that is told another way may be above what the first tier is allowed by a rounding: at
    # the highest price that tier is taken to fit.
    while (centre * ratio <= HIGHEST and not fits(at(centre * ratio))) or fits(at(centre / ratio)):
        ratio *= ratio
    low, high = centre / ratio, centre * ratio
    over, under = at(low), at(high)
    for _ in range(HALVINGS):
        if np.abs(under - over).sum() <= 1:
            break
        middle = (low * high) ** 0.5
        routes = at(middle)
        if fits(routes):
            high, under = middle, routes
        else:
            low, over = middle, routes
    return Bracket(under, over, high)


def fill(start: np.ndarray, end: np.ndarray, order: np.ndarray, fits: Fits) -> np.ndarray:
    """`start`, with as many of the tiles in `order` as fit, from the first on, set as in `end`.

    `start` itself fits.
    """

    def changed(count: int) -> np.ndarray:
        routes = start.copy()
        routes[order[:count]] = end[order[:count]]
        return routes

    low, high = 0, len(order) + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(changed(middle)) else (low, middle)
    return changed(low)


def _order(
    errors: np.ndarray, problem: RoutingProblem, under: np.ndarray, over: np.ndarray
) -> np.ndarray:
    """Tiles that differ, the most error saved for each unit of cost first.

    Those of one group stay together; ties by position.
    """
    tiles = np.flatnonzero(under != over)
    costs = np.asarray(problem.costs)
    saved = errors[tiles, under[tiles]] - errors[tiles, over[tiles]]
    worth = saved / np.maximum(np.abs(costs[over[tiles]] - costs[under[tiles]]), 1e-300)
    if problem.groups is None:
        return tiles[np.argsort(-worth, kind="stable")]
    return problem.groups.together(tiles, worth)
