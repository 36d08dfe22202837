"""How near tile routing comes to a perfect router: `make bench-routing`; JSON and PNG go into
docs/.

Every router sees the input alone and gives each tile a predicted error for each tier, or one number
that ranks tiles; of these, errors are made with the set's own mean errors, which favours them. The
same budget policy turns predictions into tiers. Tiles pay for their own pixels here, so that what
is compared is knowledge of tiles; halos are counted in "groups". Chance knows the tiers' mean
errors and no tile from another, the oracle knows all true errors. PSNR is that of the pooled error,
from whole images enlarged by each tier.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.results import machine
from benchmarks.routers import Router, routers, scored
from benchmarks.scenes import SCALE, SETS, Scene, scenes
from tierscale.models import registry as models
from tierscale.pipeline.geometry.grid import Grid
from tierscale.pipeline.plan.tiers import Tier
from tierscale.pipeline.routing.costs import cost_of_routes
from tierscale.pipeline.routing.judging import judge, leave
from tierscale.pipeline.routing.problem import RoutingProblem, all_full
from tierscale.pipeline.routing.solver import least_cost
from tierscale.pipeline.routing.windows import groups
from tierscale.pipeline.run.tiers import load_tiers

# Sets of tiers that are compared; the first one is drawn. And all tiers of the last part, where a
# method decides within tiles too.
TIERS = ("bicubic,fsrcnn-x4,edsr-x4", "bicubic,fsrcnn-x4,carn-x4")
TWO_LEVELS = (
    "bicubic",
    "fsrcnn-x4",
    "edsr-x4",
    "carn-x4",
    *(f"pcsr-carn-x4@{effort}" for effort in (0.5, 0.7, 0.9)),
)
SHARES = (0.15, 0.25, 0.5, 0.75)
SIDES = {
    "Urban100 001-020": (32, 64),
    "Set14": (32, 64),
    "earth": (64, 128),
    "painting": (64, 128),
    "slide": (64, 128),
}
REPORTED_ONLY = 32
# The lowest share that is drawn, %.
LOWEST = -50
MAX_LOSS = 0.02
DOCS = Path("docs")


def as_errors(ranks: np.ndarray, true: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """Numbers that rank tiles as errors (tiles, T): what tiers save is in proportion to them, and
    as much in all as it really is.
    """
    means = areas @ true / areas.sum()
    share = ranks / max(float(areas @ ranks / areas.sum()), 1e-30)
    return means[-1] + share[:, None] * (means - means[-1])


@dataclass(frozen=True, slots=True)
class Setting:
    """A set of images with its tiles cut. true: errors (tiles, T); areas: input pixels; costs: of a
    pixel under each tier.
    """

    images: list[Scene]
    tile: int
    tiers: tuple[Tier, ...]
    true: np.ndarray
    areas: np.ndarray

    @property
    def costs(self) -> tuple[float, ...]:
        return tuple(tier.cost for tier in self.tiers)

    def psnr(self, error: float) -> float:
        return round(-10 * float(np.log10(error)), 4)


def setting(images: list[Scene], tile: int, tiers: tuple[Tier, ...]) -> Setting:
    """The tiles of a set's images, one after another."""
    cut = [image.tiles(tile) for image in images]
    return Setting(
        images,
        tile,
        tiers,
        np.concatenate([true for true, _ in cut]),
        np.concatenate([areas for _, areas in cut]),
    )


def compare(given: Setting, found: dict[str, Router]) -> dict[str, Any]:
    """PSNR and captured share of every router at every budget, and seconds of processor that it
    took for a million input pixels.
    """
    area = given.areas.sum()
    means = given.areas @ given.true / area
    result: dict[str, Any] = {
        "tiles": len(given.true),
        "alone": {
            tier.label: given.psnr(mean) for tier, mean in zip(given.tiers, means, strict=True)
        },
        "routers": {},
    }
    for name, router in found.items():
        began = time.process_time()
        scores = np.concatenate([router(image, given.tile) for image in given.images])
        seconds = (time.process_time() - began) / area * 1e6
        predicted = scores if scores.ndim == 2 else as_errors(scores, given.true, given.areas)
        rows = {
            f"{share:g}": judge(predicted, given.true, given.areas, given.costs, share)
            for share in SHARES
        }
        figures = {
            share: {"psnr": given.psnr(row.left), "captured": round(row.captured, 3)}
            for share, row in rows.items()
        }
        result["routers"][name] = {"seconds per million pixels": round(seconds, 3), **figures}
        result["chance"] = {share: given.psnr(row.chance) for share, row in rows.items()}
        result["oracle"] = {share: given.psnr(row.oracle) for share, row in rows.items()}
    return result


def known(given: Setting, predicted: np.ndarray) -> dict[str, dict[str, float]]:
    """What a router would capture if it knew more: the mean savings of each image, or all about its
    tiles but those means.

    What is missing in the first is what tiles of one image hide; what is missing in the second is
    what images hide from each other.
    """
    means, order = predicted.copy(), given.true.copy()
    ends = np.cumsum([0, *(len(image.tiles(given.tile)[1]) for image in given.images)])
    for first, last in pairwise(ends):
        areas = given.areas[first:last]
        true, predictions = (
            areas @ (errors[first:last] - errors[first:last, -1:])
            for errors in (given.true, predicted)
        )
        # The full tier saves nothing over itself; where a tier is told to save nothing, its mean
        # cannot be mended.
        ratio = np.where(
            predictions[:-1] > 1e-12, true[:-1] / np.maximum(predictions[:-1], 1e-12), 1.0
        )
        means[first:last, :-1] = (
            means[first:last, -1:]
            + (predicted[first:last, :-1] - predicted[first:last, -1:]) * ratio
        )
        wrong = np.where(true[:-1] > 1e-12, predictions[:-1] / np.maximum(true[:-1], 1e-12), 1.0)
        order[first:last, :-1] = (
            order[first:last, -1:]
            + (given.true[first:last, :-1] - given.true[first:last, -1:]) * wrong
        )
    return {
        name: {
            f"{share:g}": round(
                judge(errors, given.true, given.areas, given.costs, share).captured, 3
            )
            for share in SHARES
        }
        for name, errors in (("mean of each image", means), ("order within each image", order))
    }


def against_each(given: Setting, predicted: np.ndarray | None) -> dict[str, Any]:
    """Each tier alone, and what routing over all of them makes of its cost: by the scout, where
    there is one, and by the oracle; PSNR.
    """
    means, found = given.areas @ given.true / given.areas.sum(), {}
    for index, tier in enumerate(given.tiers[1:], start=1):
        share = given.costs[index] / given.costs[-1]
        row = {"cost share": round(share, 4), "alone": given.psnr(means[index])}
        for name, errors in (("scout", predicted), ("oracle", given.true)):
            if errors is not None:
                row[name] = given.psnr(leave(errors, given.true, given.areas, given.costs, share))
        found[tier.label] = row
    return found


def two_levels(sets: Sequence[str], count: int | None) -> dict[str, Any]:
    """Routing of tiles over networks and a method that decides by pixels, at several efforts,
    against each alone at its cost.

    What the zoo does not hold is left out. The scout is one that was fitted for all of these, if
    there is one.
    """
    there = [name for name in TWO_LEVELS if models.parse_tier(name)[0] in models.names()]
    tiers = sorted(
        (load_tiers((name,), Fraction(SCALE))[0] for name in there), key=lambda tier: tier.cost
    )
    names = [tier.label for tier in tiers]
    scout, found = models.load_scout(names, Fraction(SCALE)), {}
    for kind in sets:
        given = setting(scenes(kind, names, count), SIDES[kind][-1], tuple(tiers))
        predicted = (
            None
            if scout is None
            else np.concatenate(
                [scored(scout, len(tiers))(image, given.tile) for image in given.images]
            )
        )
        found[kind] = against_each(given, predicted)
        print(f"{kind}, two levels, tiles of {given.tile}: {found[kind]}", flush=True)
    return {"tiers": names, "sets": found}


def grouped(given: Setting, router: Router) -> dict[str, Any]:
    """What it gains to know the halo: cost (share of the full tier everywhere, halos included) and
    seconds of one thread that `--max-loss` takes.

    Seconds are those that the tiers took for whole images, by pixels of windows.
    """
    cost, seconds, left = np.zeros((2, 2)), np.zeros(2), np.zeros(2)
    for image in given.images:
        grid = Grid(image.lr.shape[1:], Fraction(SCALE), given.tile)  # type: ignore[arg-type]
        predicted, (true, areas) = (
            router(image, given.tile).astype(np.float64),
            image.tiles(given.tile),
        )
        each = image.seconds / areas.sum()
        timed = tuple(
            replace(tier, cost=float(one)) for tier, one in zip(given.tiers, each, strict=True)
        )
        cost_of, seconds_of = (cost_of_routes(grid, tiers, 4, 1) for tiers in (given.tiers, timed))
        alone = RoutingProblem(given.costs, cost_of, areas)
        together = replace(alone, groups=groups(grid, given.tiers, 4, 1))
        for index, problem in enumerate((alone, together)):
            routes = least_cost(predicted, problem, MAX_LOSS)
            cost[:, index] += cost_of(routes), cost_of(all_full(predicted))
            seconds[index] += seconds_of(routes)
            left[index] += float(areas @ np.take_along_axis(true, routes[:, None], axis=1)[:, 0])
    names = ("tiles alone", "in groups")
    return {
        name: {
            "cost share": round(cost[0, i] / cost[1, i], 4),
            "seconds": round(seconds[i], 2),
            "psnr": given.psnr(left[i] / given.areas.sum()),
        }
        for i, name in enumerate(names)
    }


def draw(results: dict[str, Any], path: Path) -> None:
    """Share of the oracle's gain over chance that each router captures, over cost.

    A panel for every set, at its larger tile.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    sets = results["sets"]
    rows = -(-len(sets) // 2)
    figure, panels = pyplot.subplots(
        rows, 2, figsize=(13, 4.5 * rows), layout="constrained", squeeze=False
    )
    for panel in panels.flat[len(sets) :]:
        panel.set_axis_off()
    for panel, (kind, by_tile) in zip(panels.flat, sets.items(), strict=False):
        tile, found = next(reversed(by_tile.items()))
        for name, row in found["routers"].items():
            captured = [100 * row[f"{share:g}"]["captured"] for share in SHARES]
            panel.plot(
                [100 * share for share in SHARES], np.maximum(captured, LOWEST), "o-", label=name
            )
        panel.set(
            title=f"{kind}, tiles of {tile}",
            xlabel="multiply-adds, % of the full tier everywhere",
            ylabel=f"% of the oracle's gain over chance\n(below {LOWEST}: drawn there)",
        )
        panel.grid(color="#e0e0e0")
        panel.legend(fontsize=8)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def measure(names: Sequence[str], sets: Sequence[str], count: int | None) -> dict[str, Any]:
    """Some sets with some tiers. count: the first so many images of each."""
    tiers, (found, about) = load_tiers(names, Fraction(SCALE)), routers(names)
    results: dict[str, Any] = {}
    for kind in sets:
        images = scenes(kind, names, count)
        for tile in SIDES[kind]:
            given = setting(images, tile, tiers)
            row = compare(given, found)
            predicted = np.concatenate(
                [found["our scout"](image, tile).astype(np.float64) for image in images]
            )
            row["captured if the scout knew"] = known(given, predicted)
            row["at the cost of each tier"] = against_each(given, predicted)
            row["groups"] = grouped(given, found["our scout"])
            best, half = (
                row["alone"][given.tiers[-1].label],
                {
                    "scout": row["routers"]["our scout"]["0.5"]["psnr"],
                    "oracle": row["oracle"]["0.5"],
                },
            )
            row["below full at 0.5, dB"] = {
                name: round(best - psnr, 4) for name, psnr in half.items()
            }
            results.setdefault(kind, {})[str(tile)] = row
            captured = {
                name: [row["routers"][name][f"{share:g}"]["captured"] for share in SHARES]
                for name in found
            }
            note = " (reported only)" if tile == REPORTED_ONLY else ""
            print(
                f"{names[-1]}, {kind}, tiles of {tile}{note}: captured at {SHARES}: {captured}",
                flush=True,
            )
    return {"tiers": list(names), "routers": about, "sets": results}


def main(line: Sequence[str] | None = None) -> None:
    """Measure, and write docs/routing-bench.json and docs/routing-bench.png unless only a part was
    asked for.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.routing", description=__doc__.splitlines()[0], allow_abbrev=False
    )  # type: ignore[union-attr]
    parser.add_argument(
        "--tiers",
        action="append",
        help="names with commas, once for each set of tiers (default: two sets)",
    )
    parser.add_argument("--sets", help="names of sets of images with commas; all unless given")
    parser.add_argument("--images", type=int, help="the first so many of each set")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--out",
        type=Path,
        help="folder for JSON and PNG (default: docs/ when all sets are measured)",
    )
    options = parser.parse_args(line)
    folder = options.out or (
        DOCS if options.sets is None and options.images is None and options.tiers is None else None
    )
    torch.set_num_threads(options.threads)
    sets = options.sets.split(",") if options.sets else list(SETS)
    measured = [measure(names.split(","), sets, options.images) for names in options.tiers or TIERS]
    results = {
        "command": "make bench-routing",
        "machine": machine(),
        "measured": measured,
        "two levels": two_levels(sets, options.images),
    }
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "routing-bench.json").write_text(json.dumps(results, indent=1) + "\n")
        draw(measured[0], folder / "routing-bench.png")


if __name__ == "__main__":
    main()
