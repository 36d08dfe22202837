"""Scores in, one tier per tile out. Pure functions; nothing here knows an image, a network or a
store.

Everywhere, `errors` is (tiles, tiers): the mean squared error (values 0..1) predicted for each tile
under each tier, tiers ordered cheap to dear. Routes are (tiles,) int64 of tier indices. What a
policy cannot do is a ValueError.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

# An error of one count in 255, which is about what people can see.
VISIBLE = 1 / 255
# Halvings of an interval of prices; after these its ends are equal, and what their routes differ in
# are ties.
HALVINGS = 50
HIGHEST = 1e200
# Share of the dearest cost that may be left unused, and how many single tiles are tried to use
# more.
SLACK, TRIED = 0.01, 2000
# Up to so many tiles, budgets are tried for a cheaper way to a quality; so often is what they may
# save halved. In an image of more tiles the two ways differ by less than a hundredth.
FEW, TRIALS = 400, 7

CostOf = Callable[[np.ndarray], float]


class Grouped(Protocol):
    """Tiles that may share their halos."""

    def cheapest(self, errors: np.ndarray, price: float) -> np.ndarray:
        """Routes with the least sum of errors + price * cost."""
        ...

    def cost(self, routes: np.ndarray) -> float:
        """What routes cost, as far as it is quickly told."""
        ...

    def together(self, tiles: np.ndarray, worth: np.ndarray) -> np.ndarray:
        """Tiles in order of worth, those of one group after each other."""
        ...


@dataclass(frozen=True, slots=True)
class RoutingProblem:
    """What a policy may need beside the scores.

    costs: of a pixel under each tier, rising; multiply-adds, or seconds where `seconds` is given.
    cost_of: cost of a whole route, halos included, in the same unit. budget: allowed share of the
    cost of all-dearest, or None. seconds: allowed cost, in seconds, or None. threshold: difficulty
    above which a dearer tier is taken, or None. lose: dB below all-dearest that are allowed, or
    None. areas: input pixels of each tile, (tiles,); None: all alike. groups: which tiles may share
    their halos; None: each pays its own.
    """

    costs: tuple[float, ...]
    cost_of: CostOf
    budget: float | None = None
    threshold: float | None = None
    lose: float | None = None
    seconds: float | None = None
    areas: np.ndarray | None = None
    groups: Grouped | None = None


def difficulty(errors: np.ndarray) -> np.ndarray:
    """Predicted error of the cheapest tier less that of the dearest, at least 0; (tiles,)."""
    return np.maximum(errors[:, 0] - errors[:, -1], 0.0)


def check(errors: np.ndarray, columns: int) -> None:
    """Refuse scores that are not finite, naming the first tile; columns: tiles in a row of the
    image.
    """
    bad = np.flatnonzero(~np.isfinite(errors).all(axis=1))
    if len(bad):
        row, column = divmod(int(bad[0]), columns)
        raise ValueError(
            f"the scout's score of tile (row {row}, column {column}) is {errors[bad[0]].tolist()},"
            " not a number; check its pixels"
        )


def dearest(errors: np.ndarray, choice: RoutingProblem) -> np.ndarray:
    """Every tile to the dearest tier."""
    return np.full(len(errors), errors.shape[1] - 1, np.int64)


def cheapest(errors: np.ndarray, choice: RoutingProblem) -> np.ndarray:
    """Every tile to the cheapest tier."""
    return np.zeros(len(errors), np.int64)


def threshold(errors: np.ndarray, choice: RoutingProblem) -> np.ndarray:
    """The cheapest tier whose predicted error is at most `threshold` above that of the dearest."""
    if choice.threshold is None or not choice.threshold >= 0:
        raise ValueError(
            f"policy threshold needs a difficulty of 0 or more, not {choice.threshold}; give"
            " --threshold X"
        )
    enough = errors - errors[:, -1:] <= choice.threshold
    return np.argmax(enough, axis=1).astype(np.int64)


def adaptive(errors: np.ndarray, choice: RoutingProblem) -> np.ndarray:
    """As many groups of tiles as tiers, found by k-means on the root of the difficulty; the easiest
    group gets the cheapest tier.

    The root is an error in grey values, the scale on which people see: squares would leave the hard
    group almost empty. Scores are sorted and centroids start evenly spaced, so that neither the
    order of the tiles nor chance has a say.
    """
    scores = np.sqrt(difficulty(errors))
    tiers = errors.shape[1]
    # A thousandth of the range of values is below what any 8-bit output can show.
    if tiers == 1:
        return np.zeros(len(errors), np.int64)
    if scores.max() - scores.min() < 1e-3:
        # Nothing to tell apart, as in an image of one tile: all are worth the dearest tier, or none
        # is.
        return dearest(errors, choice) if scores.max() > VISIBLE else cheapest(errors, choice)
    scores = (scores - scores.min()) / (scores.max() - scores.min())
    centroids = np.sort(_kmeans(np.sort(scores), np.linspace(0.0, 1.0, tiers)))
    borders = (centroids[1:] + centroids[:-1]) / 2
    return np.searchsorted(borders, scores, side="left").astype(np.int64)


def _kmeans(ordered: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """One-dimensional k-means from given centroids, (k,); empty groups keep their place."""
    # Here, and not above, because torch takes two seconds to import and most readers of this module
    # do not cluster.
    import torch
    from fast_pytorch_kmeans import KMeans

    start = torch.from_numpy(centroids[:, None].copy())
    model = KMeans(n_clusters=len(centroids), mode="euclidean", max_iter=100, tol=1e-10)
    labels = model.fit_predict(torch.from_numpy(ordered[:, None].copy()), centroids=start).numpy()
    return np.array(
        [
            ordered[labels == k].mean() if (labels == k).any() else centroids[k]
            for k in range(len(centroids))
        ]
    )


def budget(errors: np.ndarray, choice: RoutingProblem) -> np.ndarray:
    """The least predicted error whose cost stays within `budget` times that of all-dearest; see
    within().
    """
    if choice.budget is None or not 0 < choice.budget <= 1:
        raise ValueError(
            "policy budget needs a share of the dearest cost above 0 and up to 1, not"
            f" {choice.budget}; give --budget SHARE"
        )
    if choice.budget == 1:
        return dearest(errors, choice)
    most = choice.cost_of(dearest(errors, choice))
    least = choice.cost_of(cheapest(errors, choice))
    if least > choice.budget * most:
        raise ValueError(
            f"a budget of {choice.budget:g} is below the cheapest tier everywhere, which costs"
            f" {rounded_up(least / most)}; ask for that or more"
        )
    return within(errors, choice, choice.budget * most)


def deadline(errors: np.ndarray, choice: RoutingProblem) -> np.ndarray:
    """The least predicted error that takes at most `seconds`; costs are seconds."""
    if choice.seconds is None:
        raise ValueError("policy deadline needs a time; give --deadline, such as 6h or 90m")
    least = choice.cost_of(cheapest(errors, choice))
    if least > choice.seconds:
        raise ValueError(
            f"{max(choice.seconds, 0):.3g} seconds are too few: the cheapest tier everywhere takes"
            f" about {least:.3g}; give more time, more workers, or a cheaper tier"
        )
    return within(errors, choice, choice.seconds)


def quality(errors: np.ndarray, choice: RoutingProblem) -> np.ndarray:
    """The least cost whose predicted error stays within `lose` dB of that of the dearest tier
    everywhere.
    """
    if choice.lose is None or not choice.lose >= 0:
        raise ValueError(
            f"policy quality needs 0 dB or more that may be lost, not {choice.lose}; give --lose DB"
        )
    weighed = _weighed(errors, choice)
    allowed = weighed[:, -1].sum() * 10 ** (choice.lose / 10) * (1 + 1e-12)

    def good(routes: np.ndarray) -> bool:
        return _left(weighed, routes) <= allowed

    best, least = dearest(errors, choice), cheapest(errors, choice)
    if good(least):
        return least
    for one in _forms(choice):
        found = bracket(errors, one, lambda routes: not good(routes))
        routes = fill(
            found.fails, found.fits, _order(errors, one, found.fits, found.fails)[::-1], good
        )
        best = min(best, routes, key=choice.cost_of)
    low, high = choice.cost_of(least), choice.cost_of(best)
    for _ in range(TRIALS if len(errors) <= FEW else 0):
        middle = (low + high) / 2
        routes = within(errors, choice, middle)
        if good(routes):
            best, high = routes, choice.cost_of(routes)
        else:
            low = middle
    return best


def rounded_up(share: float) -> str:
    """A share above 0 in three digits, none of them too small, so that who asks for what is written
    gets it.
    """
    unit = 10.0 ** (math.floor(math.log10(share)) - 2)
    return f"{min(1.0, math.ceil(share / unit) * unit):.3g}"


def _forms(choice: RoutingProblem) -> list[RoutingProblem]:
    """Ways to look at the same tiles: in groups that share their halos, and each alone. In an image
    of few shards single tiles may fit where no whole group does.
    """
    return [choice] if choice.groups is None else [choice, replace(choice, groups=None)]


def within(errors: np.ndarray, choice: RoutingProblem, allowed: float) -> np.ndarray:
    """The least predicted error whose cost is at most `allowed`, which the cheapest tier everywhere
    must be.

    One price of work is the same for all tiles: each takes the tier with the least error + price *
    cost (the Lagrangian solution), the price being found by bisection. What is then left of
    `allowed` goes to tiles that the next lower price would make dearer, those with the most error
    saved for their cost first, ties by position. Nothing is spent where nothing is saved.
    """

    def fits(routes: np.ndarray) -> bool:
        return choice.cost_of(routes) <= allowed

    found = []
    groups = choice.groups
    for one in _forms(choice):
        # The layout of all windows takes a hundred times as long to ask as its cost without strips,
        # which is nearly right.
        guess = (
            None
            if groups is None
            else bracket(errors, one, lambda routes: groups.cost(routes) <= allowed).price
        )
        ends = bracket(errors, one, fits, guess)
        order = _order(errors, one, ends.fits, ends.fails)
        saving = errors[order, ends.fits[order]] > errors[order, ends.fails[order]]
        found.append(fill(ends.fits, ends.fails, order[saving], fits))
    weighed = _weighed(errors, choice)
    best = min(found, key=lambda routes: _left(weighed, routes))
    return top_up(errors, choice, best, allowed)


def top_up(
    errors: np.ndarray, choice: RoutingProblem, routes: np.ndarray, allowed: float
) -> np.ndarray:
    """Routes that leave more than a hundredth of the dearest cost unused, with single tiles made
    dearer as long as one fits.

    The price of work is the same for all tiles, so in an image of few tiles the next one at that
    price may be too dear where others fit.
    """
    routes, macs = routes.copy(), choice.cost_of(routes)
    enough = allowed - SLACK * choice.cost_of(dearest(errors, choice))
    if macs > enough:
        return routes
    weighed, work, now = _weighed(errors, choice), _work(errors, choice), routes[:, None]
    saved = np.take_along_axis(weighed, now, axis=1) - weighed
    more = work - np.take_along_axis(work, now, axis=1)
    dearer = np.arange(errors.shape[1]) > now
    worth = np.where(dearer & (saved > 0), saved / np.maximum(more, 1e-300), -1.0)
    places = np.argsort(-worth, axis=None, kind="stable")[: int((worth >= 0).sum())]
    # A tile that did not fit may, once its neighbour is as dear and they share a halo: so again
    # from the first, as long as one did.
    tries, again = TRIED, True
    while again:
        again = False
        for tile, tier in zip(*np.unravel_index(places[:tries], worth.shape), strict=True):
            if tier <= routes[tile]:
                continue
            tries -= 1
            before, routes[tile] = routes[tile], tier
            macs = choice.cost_of(routes)
            if macs > allowed:
                routes[tile] = before
                continue
            if macs > enough:
                return routes
            again = True
    return routes


def priced(errors: np.ndarray, choice: RoutingProblem, price: float) -> np.ndarray:
    """Each tile's tier with the least error + price * cost, in error for each unit of cost; of
    equal ones the cheaper.
    """
    weighed = _weighed(errors, choice)
    if choice.groups is not None:
        return choice.groups.cheapest(weighed, price)
    return np.argmin(weighed + price * _work(errors, choice), axis=1).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Bracket:
    """Two prices next to each other. fits: routes of the higher one, which fit; fails: of the lower
    one; price: the higher one.
    """

    fits: np.ndarray
    fails: np.ndarray
    price: float


def bracket(
    errors: np.ndarray,
    choice: RoutingProblem,
    fits: Callable[[np.ndarray], bool],
    guess: float | None = None,
) -> Bracket:
    """Where the routes at rising prices begin to fit. fits: true of the cheapest routes. guess: a
    price near by.

    Where what is best at no price at all fits too, those that fail are all-dearest.
    """
    free = priced(errors, choice, 0.0)
    if fits(free):
        return Bracket(free, dearest(errors, choice), 0.0)

    def at(price: float) -> np.ndarray:
        # Some windows cost next to nothing more than their parts: to them hardly any price is too
        # high.
        return (
            cheapest(errors, choice)
            if price > HIGHEST
            else free
            if price < 1 / HIGHEST
            else priced(errors, choice, price)
        )

    most = float((errors.max(axis=1) - errors.min(axis=1)).max())
    centre, ratio = guess or most / min(np.diff(choice.costs), default=1.0), 1.01
    while not fits(at(centre * ratio)) or fits(at(centre / ratio)):
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


def fill(
    start: np.ndarray, end: np.ndarray, order: np.ndarray, fits: Callable[[np.ndarray], bool]
) -> np.ndarray:
    """`start`, with as many of the tiles in `order` as fit, from the first on, set as in `end`.
    start fits.
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
    errors: np.ndarray, choice: RoutingProblem, under: np.ndarray, over: np.ndarray
) -> np.ndarray:
    """Tiles that differ, the most error saved for each unit of cost first, those of one group
    together, ties by position.
    """
    tiles = np.flatnonzero(under != over)
    costs = np.asarray(choice.costs)
    saved = errors[tiles, under[tiles]] - errors[tiles, over[tiles]]
    worth = saved / np.maximum(np.abs(costs[over[tiles]] - costs[under[tiles]]), 1e-300)
    return (
        tiles[np.argsort(-worth, kind="stable")]
        if choice.groups is None
        else choice.groups.together(tiles, worth)
    )


def _weighed(errors: np.ndarray, choice: RoutingProblem) -> np.ndarray:
    """Errors times the tiles' areas, which add up to the image's."""
    return errors if choice.areas is None else errors * choice.areas[:, None]


def _left(weighed: np.ndarray, routes: np.ndarray) -> float:
    """The sum of weighed errors under some routes."""
    return float(np.take_along_axis(weighed, routes[:, None], axis=1).sum())


def _work(errors: np.ndarray, choice: RoutingProblem) -> np.ndarray:
    """What each tile costs by each tier, (tiles, tiers), halos apart: areas times costs."""
    return np.outer(np.ones(len(errors)) if choice.areas is None else choice.areas, choice.costs)


POLICIES: dict[str, Callable[[np.ndarray, RoutingProblem], np.ndarray]] = {
    "adaptive": adaptive,
    "budget": budget,
    "quality": quality,
    "deadline": deadline,
    "threshold": threshold,
    "dearest": dearest,
    "cheapest": cheapest,
}
