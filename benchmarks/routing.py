"""How near tile routing comes to what can be known of tiles: `make bench-routing`.

Images are shrunk by 4 and enlarged with every tier. Routers see the small image alone and predict
what each tier leaves on each tile; the same budget policy turns predictions into tiers. The bound
knows the true squared differences between the results of the tiers, which is all that can be known
without the truth; the oracle knows the true errors, and chance the tiers' mean errors alone. Tiles
pay for their own pixels here, so that what is compared is knowledge of tiles. Losses are those of
the pooled error, in dB below the full tier everywhere. Writes docs/routing-bench.json.
"""

import argparse
import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.results import machine
from benchmarks.scenes import SCALE, SETS, scenes
from tierscale.models import weights as zoo
from tierscale.models.contract.gains import Gains, read_gains
from tierscale.models.train.cards.observe import ENERGY, TILE, Observed
from tierscale.pipeline.plan.tiers import Tier
from tierscale.pipeline.routing.gains import Prediction, predict
from tierscale.pipeline.routing.judging import chance, leave
from tierscale.pipeline.run.tiers import load_tiers

TIERS = ("bicubic,edsr-x4,edsr64-x4", "bicubic,fsrcnn-x4,edsr64-x4", "bicubic,fsrcnn-x4,edsr-x4")
SHARES = (0.25, 0.5, 0.75)
NETWORK = "fsrcnn-x4"
DOCS = Path("docs")


def known_gains(tiers: Sequence[Tier], score: str, kind: str) -> Gains | None:
    """What the card of the full tier says, whether or not the score is light enough for it."""
    names = {tier.name: tier.weights for tier in tiers}
    return read_gains(zoo.card(tiers[-1].name), names, score, kind)


def predictions(
    images: Sequence[Observed], tiers: Sequence[Tier], score: str
) -> list[Prediction] | None:
    """What is predicted of the tiles of images; None: no card knows the tiers by this score."""
    gains, labels = known_gains(tiers, score, images[0].kind), [tier.label for tier in tiers]
    if gains is None:
        return None
    return [predict(one.scores[score], labels, gains, None, one.kind) for one in images]


def decibels(left: float, full: float) -> float:
    """A loss against an error, in dB."""
    return round(10 * float(np.log10(left / full)), 4)


def held(image: Observed, found: Prediction) -> tuple[float, float]:
    """The true loss and its predicted upper end, where the easy half of the tiles goes down a tier
    and the easiest quarter to the first.
    """
    order, tiers = np.argsort(found.errors[:, 0] - found.errors[:, -1]), found.errors.shape[1]
    routes = np.full(len(order), tiers - 1)
    routes[order[: len(order) // 2]] = tiers - 2
    routes[order[: len(order) // 4]] = 0
    full = found.errors[:, -1:]
    upper = full + (found.errors - full) * np.array(found.evidence.high)
    true, told = (
        np.take_along_axis(errors, routes[:, None], axis=1).sum() / errors[:, -1].sum()
        for errors in (image.errors, upper)
    )
    return decibels(true, 1.0), decibels(told, 1.0)


def compare(images: Sequence[Observed], tiers: Sequence[Tier]) -> dict[str, Any]:
    """Losses of every router at every budget, and how often the predicted upper end held."""
    true = np.concatenate([one.errors for one in images])
    routers: dict[str, np.ndarray] = {
        "bound": np.concatenate([one.apart[:, :, -1] for one in images]),
        "oracle": true,
    }
    row: dict[str, Any] = {"tiles": len(true)}
    for name, score in (("difference", NETWORK), ("local energy", ENERGY)):
        found = predictions(images, tiers, score)
        if found is not None:
            routers[name] = np.concatenate([one.errors for one in found])
            pairs = [held(one, told) for one, told in zip(images, found, strict=True)]
            row[f"upper end held, {name}"] = f"{sum(a <= b for a, b in pairs)} of {len(pairs)}"
    areas, costs = np.ones(len(true)), [tier.cost for tier in tiers]
    full = true[:, -1].mean()
    for share in SHARES:
        lot = chance(true, areas, costs, share)
        left = {name: leave(told, true, areas, costs, share) for name, told in routers.items()}
        best = lot - left["bound"]
        row[f"{share:g}"] = {
            name: {
                "below full, dB": decibels(error, full),
                "regret against the bound, dB": decibels(error, left["bound"]),
                # Of nothing, or less, there is no share.
                "share of the bound": round((lot - error) / best, 3) if best > 0 else None,
            }
            for name, error in {**left, "chance": lot}.items()
        }
    return row


def main(line: Sequence[str] | None = None) -> None:
    """Measure, and write docs/routing-bench.json unless only a part was asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.routing",
        description="How near routing comes to what can be known.",
    )
    parser.add_argument("--tiers", action="append", help="names with commas; may be repeated")
    parser.add_argument("--sets", help="names of sets with semicolons; all unless given")
    options = parser.parse_args(line)
    torch.set_num_threads(1)
    sets = options.sets.split(";") if options.sets else list(SETS)
    names = list(dict.fromkeys(name for tiers in TIERS for name in tiers.split(",")))
    names.sort(key=lambda name: load_tiers((name,), Fraction(SCALE))[0].cost)
    results: list[dict[str, Any]] = []
    for text in options.tiers or TIERS:
        tiers = load_tiers(text.split(","), Fraction(SCALE))
        places = [names.index(tier.name) for tier in tiers]
        found = {}
        for one in sets:
            images = [_only(image, places) for image in scenes(one, names)]
            found[one] = compare(images, tiers)
            print(text, one, json.dumps(found[one]), flush=True)
        results.append({"tiers": text, "sets": found})
    if options.sets is None and options.tiers is None:
        about = {"command": "make bench-routing", "machine": machine(), "tile": TILE}
        content = json.dumps({**about, "measured": results}, indent=1)
        (DOCS / "routing-bench.json").write_text(f"{content}\n")


def _only(image: Observed, places: Sequence[int]) -> Observed:
    """An image with some of the tiers alone."""
    errors, apart = image.errors[:, places], image.apart[:, places][:, :, places]
    return Observed(image.photo, image.kind, image.scores, errors, apart)


if __name__ == "__main__":
    main()
