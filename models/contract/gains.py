"""What a card knows of routing to its network: how much error it saves over lighter tiers.

All of it is over the score of a tile (`models.difference`), by kind of picture. Squared errors and
squared differences are of values 0..1. Cards are written by `models.train.cards`.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tierscale.models.contract.kind import Kind

# Scores at which curves are stored: half a decade apart.
KNOTS = np.logspace(-7, -1, 13)
# Smallest score that is told from none, far below what 8 bits can show.
LEAST = 1e-9
# Part of a card with all of this.
SECTION = "routing"


@dataclass(frozen=True, slots=True)
class Curve:
    """Positive values over scores: straight between KNOTS in logarithms, level beyond them.

    logs: decimal logarithms at the knots.
    """

    logs: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.logs) != len(KNOTS):
            raise ValueError(f"a curve needs {len(KNOTS)} values, not {len(self.logs)}")

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """Values at scores of any shape."""
        where = np.log10(np.maximum(scores, LEAST))
        values: np.ndarray = 10 ** np.interp(where, np.log10(KNOTS), self.logs)
        return values


@dataclass(frozen=True, slots=True)
class Spread:
    """Ratios of gains to differences that would have told photos' true losses in dB.

    5 and 95 % of photos lie below the ends. That the error of the full tier is not known exactly is
    in them too.
    """

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class TierGains:
    """What the card's network saves over one lighter tier.

    ratio: gains over squared differences, near 1 on what the network was trained for. apart:
    squared difference of the two results, over the score, divided by the score. predicted: spread
    of the ratio when `apart` tells the difference; measured: when it was measured on the image.
    """

    ratio: float
    apart: Curve
    predicted: Spread
    measured: Spread


@dataclass(frozen=True, slots=True)
class Gains:
    """What a network's card says for one kind of picture and one way to score.

    error: mean squared error of the network itself over the score. below: by name of the tier.
    """

    error: Curve
    below: Mapping[str, TierGains]


def gains_to_json(gains: Gains) -> dict[str, Any]:
    """The JSON object that read_gains() reads."""
    return {
        "error": list(gains.error.logs),
        "below": {
            name: {
                "ratio": tier.ratio,
                "apart": list(tier.apart.logs),
                "predicted": [tier.predicted.low, tier.predicted.high],
                "measured": [tier.measured.low, tier.measured.high],
            }
            for name, tier in gains.below.items()
        },
    }


def _gains(plain: Mapping[str, Any]) -> Gains:
    return Gains(
        Curve(tuple(plain["error"])),
        {
            name: TierGains(
                tier["ratio"],
                Curve(tuple(tier["apart"])),
                Spread(*tier["predicted"]),
                Spread(*tier["measured"]),
            )
            for name, tier in plain["below"].items()
        },
    )


def read_gains(
    card: Mapping[str, Any], tiers: Mapping[str, str], score: str, kind: str = "clean"
) -> Gains | None:
    """What a card says of some tiers; None: it says nothing of one of them as it is now.

    tiers: weights (SHA-256, hex) by name, the card's own network last. score: the name of what
    scores tiles.
    """
    section = card.get(SECTION)
    if section is None or kind not in section["kinds"]:
        return None
    known: Mapping[str, str] = section["weights"]
    if any(known.get(name) != weights[:12] for name, weights in tiers.items()):
        return None
    scored = section["kinds"][kind].get(score)
    return None if scored is None else _gains(scored)


def kinds(card: Mapping[str, Any]) -> Sequence[str]:
    """The kinds of pictures that a card tells of."""
    return tuple(card.get(SECTION, {}).get("kinds", ()))


def nearest_kind(kind: Kind | None, known: Sequence[str]) -> str:
    """The name of the known kind that is most like a picture's; "clean" where there is none.

    known: such as "grain8+jpeg60". A pixel of blur counts as much as 8 levels of grain or 50 of
    JPEG quality.
    """
    if kind is None or not known:
        return "clean"
    mine = (kind.blur, kind.grain / 8, (100 - (kind.jpeg_quality or 100)) / 50)

    def distance(name: str) -> float:
        parts = dict(re.findall(r"(blur|grain|jpeg)([0-9.]+)", name))
        quality = float(parts.get("jpeg", 100))
        its = (float(parts.get("blur", 0)), float(parts.get("grain", 0)) / 8, (100 - quality) / 50)
        return math.dist(mine, its)

    return min(known, key=distance)
