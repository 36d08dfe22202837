"""Adds to cards what they say of routing.

`python -m tierscale.models.train.cards --tiers bicubic,fsrcnn-x4,edsr-x4 --hr DIR` observes photos
with all tiers, clean and damaged, and writes to the card of each tier but the first what it gains
over the lighter ones.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch

from tierscale.models import registry, weights
from tierscale.models.contract.checkpoints import write_whole
from tierscale.models.contract.gains import SECTION, gains_to_json
from tierscale.models.train.cards.fit import by_kind, gains_of
from tierscale.models.train.cards.observe import ENERGY, Observed, Observing, observe
from tierscale.models.train.data.mixture import WATCHED


def section(
    observed: Sequence[Observed], tiers: Mapping[str, str], scorers: Mapping[str, str], full: int
) -> dict[str, Any]:
    """What the card of tier `full` says. tiers, scorers: digests of weights by name."""
    names = list(tiers)
    known = {**scorers, **{name: tiers[name] for name in names[: full + 1]}}
    scores = [ENERGY, *(name for name in scorers if name != names[full])]
    return {
        "photos": len({one.photo for one in observed}),
        "weights": {name: digest[:12] for name, digest in known.items()},
        "kinds": {
            kind: {score: gains_to_json(gains_of(some, names, full, score)) for score in scores}
            for kind, some in by_kind(observed).items()
        },
    }


def write_sections(
    observed: Sequence[Observed], tiers: Mapping[str, str], scorers: Mapping[str, str]
) -> list[str]:
    """Write the part about routing into the cards of all tiers but the first; their names."""
    names = list(tiers)
    for full, name in enumerate(names[1:], start=1):
        card = {**weights.card(name), SECTION: section(observed, tiers, scorers, full)}
        write_whole(weights.ZOO / f"{name}.json", f"{json.dumps(card, indent=2)}\n".encode())
    return names[1:]


def main(line: Sequence[str] | None = None) -> int:
    """Observe and write; 2 where it cannot be."""
    parser = argparse.ArgumentParser(
        prog="python -m tierscale.models.train.cards", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("--tiers", required=True, help="names from light to full, with commas")
    parser.add_argument("--scale", type=Fraction, default=Fraction(4))
    parser.add_argument("--hr", type=Path, action="append", required=True, help="folder of photos")
    parser.add_argument("--kinds", default=",".join(WATCHED), help="kinds of damage, with commas")
    parser.add_argument("--seconds", type=float, default=1800.0, help="when to stop with photos")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(line)
    torch.set_num_threads(options.threads)
    names = options.tiers.split(",")
    light = f"fsrcnn-x{options.scale}"
    scorers = [light] if light in weights.networks() else []
    try:
        how = Observing(
            {name: registry.load(name) for name in names},
            {name: registry.load(name) for name in scorers},
            options.kinds.split(","),
            options.scale,
            options.seconds,
        )
        observed = observe(options.hr, how, lambda done, _: print(f"{done} photos", flush=True))
    except ValueError as error:
        print(f"cards: {error}", file=sys.stderr)
        return 2
    digests = {name: registry.digest(name) for name in {*names, *scorers}}
    written = write_sections(
        observed,
        {name: digests[name] for name in names},
        {name: digests[name] for name in scorers},
    )
    print(f"written: {', '.join(written)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
