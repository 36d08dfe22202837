"""How tiles are given their tiers: one small class a policy, valid once constructed.

A policy only says what is wanted; `pipeline.routing` finds the routes. `Full` gives every tile the
last tier of the list, `Light` the first.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from tierscale.pipeline.errors import Refused


def _check_number(name: str, value: object) -> None:
    """Refuse what is no number; True and False are none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Refused(f"a {name} of {value!r} is not a number; give one such as 0.5")


@dataclass(frozen=True, slots=True)
class Adaptive:
    """As many groups of tiles as tiers, by k-means on the difficulty of the image's tiles."""

    name: ClassVar[str] = "adaptive"


@dataclass(frozen=True, slots=True)
class Budget:
    """The least predicted error within a share of what the full tier costs everywhere.

    share: above 0, up to 1. shared: the share is that of a whole archive, to which this image
    contributes; it may itself cost more or less.
    """

    name: ClassVar[str] = "budget"
    share: float
    shared: bool = False

    def __post_init__(self) -> None:
        _check_number("budget", self.share)
        if not 0 < self.share <= 1:
            raise Refused(
                f"a budget of {self.share:g} is not a share above 0 and up to 1 of the cost of the"
                " full tier; write for example 0.5"
            )


@dataclass(frozen=True, slots=True)
class MaxLoss:
    """The least cost that is predicted to stay within `db` dB of the full tier everywhere."""

    name: ClassVar[str] = "max-loss"
    db: float

    def __post_init__(self) -> None:
        _check_number("loss", self.db)
        if not 0 <= self.db < math.inf:
            raise Refused(
                f"a loss of {self.db:g} dB is not a number of 0 or more; write for example 0.02"
            )


@dataclass(frozen=True, slots=True)
class Deadline:
    """The least predicted error that is ready in `seconds`, by the workers' measured speed."""

    name: ClassVar[str] = "deadline"
    seconds: float

    def __post_init__(self) -> None:
        _check_number("deadline", self.seconds)
        if not 0 < self.seconds < math.inf:
            raise Refused(
                f"a deadline of {self.seconds:g} s is not a time above 0; write for example"
                " 6h or 90m"
            )


@dataclass(frozen=True, slots=True)
class Threshold:
    """The first tier whose predicted squared error is at most `gap` above that of the full tier."""

    name: ClassVar[str] = "threshold"
    gap: float

    def __post_init__(self) -> None:
        _check_number("threshold", self.gap)
        if not 0 <= self.gap < math.inf:
            raise Refused(
                f"a threshold of {self.gap:g} is not a squared error of 0 or more; write for"
                " example 1e-4"
            )


@dataclass(frozen=True, slots=True)
class Full:
    """The last tier of the list for every tile."""

    name: ClassVar[str] = "full"


@dataclass(frozen=True, slots=True)
class Light:
    """The first tier of the list for every tile."""

    name: ClassVar[str] = "light"


Policy = Adaptive | Budget | MaxLoss | Deadline | Threshold | Full | Light

KINDS: dict[str, type[Policy]] = {
    kind.name: kind for kind in (MaxLoss, Adaptive, Budget, Deadline, Threshold, Full, Light)
}
_WITHOUT_NUMBER: Mapping[str, Policy] = {
    Adaptive.name: Adaptive(),
    Full.name: Full(),
    Light.name: Light(),
}
_WITH_NUMBER: Mapping[str, Callable[[float], Policy]] = {
    Budget.name: Budget,
    MaxLoss.name: MaxLoss,
    Deadline.name: Deadline,
    Threshold.name: Threshold,
}
# The one number of a policy, by the name of the option that gives it.
PARAMETERS = {
    "budget": "budget",
    "max_loss": "max-loss",
    "deadline": "deadline",
    "threshold": "threshold",
}
# A number for each, as an example.
EXAMPLES = {"budget": "0.5", "max_loss": "0.02", "deadline": "6h", "threshold": "1e-4"}
# Names of version 0.1, which stay readable until 1.0.
OLD_NAMES = {"dearest": "full", "cheapest": "light", "quality": "max-loss"}
DEFAULT = MaxLoss(0.05)


def needs_scores(policy: Policy) -> bool:
    """Whether the policy needs scores: `Full` and `Light` give all tiles one tier."""
    return not isinstance(policy, Full | Light)


def policy_from(
    name: str | None, parameters: Mapping[str, float | None], default: Policy = DEFAULT
) -> Policy:
    """The policy that is asked for by its name, by one of PARAMETERS, or by both.

    default: where nothing is asked for, and where its own name is without a number.
    Refused: there is no such policy, its parameter is missing, or a parameter would be ignored.
    """
    numbers = {key: value for key, value in parameters.items() if value is not None}
    if name is None and not numbers:
        return default
    chosen = name or PARAMETERS[next(iter(numbers))]
    chosen = OLD_NAMES.get(chosen, chosen)
    if chosen not in KINDS:
        raise Refused(f"there is no policy {name!r}; choose one of {', '.join(KINDS)}")
    for key in numbers:
        if PARAMETERS[key] != chosen:
            raise Refused(
                f"{key} belongs to policy {PARAMETERS[key]} and would be ignored by {chosen};"
                " leave one of the two out"
            )
    if chosen in _WITHOUT_NUMBER:
        return _WITHOUT_NUMBER[chosen]
    if not numbers and chosen == default.name:
        return default
    if not numbers:
        needed = chosen.replace("-", "_")
        raise Refused(f"policy {chosen} needs a number; give {needed}, such as {EXAMPLES[needed]}")
    return _WITH_NUMBER[chosen](next(iter(numbers.values())))


def parameter_of(policy: Policy) -> float | None:
    """The one number of a policy, or None where it has none."""
    numbers = [value for value in asdict(policy).values() if not isinstance(value, bool)]
    return float(numbers[0]) if numbers else None


def policy_to_json(policy: Policy) -> dict[str, Any]:
    """Name and parameters as JSON values."""
    return {"name": policy.name, **asdict(policy)}


def policy_from_json(plain: Mapping[str, Any]) -> Policy:
    """The policy that policy_to_json() wrote."""
    values = {key: value for key, value in plain.items() if key != "name"}
    return KINDS[plain["name"]](**values)


def in_words(policy: Policy) -> str:
    """The policy as a person would write it: `budget 0.3`."""
    values = [f"{value:g}" for value in asdict(policy).values() if not isinstance(value, bool)]
    shared = " of the archive" if isinstance(policy, Budget) and policy.shared else ""
    return " ".join([policy.name, *values]) + shared
