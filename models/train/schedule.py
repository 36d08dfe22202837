"""How long and how fast a network is trained. Light: the command line reads it without torch."""

import math
from dataclasses import dataclass

# Losses of plain networks, see tasks.LOSSES.
LOSS_NAMES = ("charbonnier", "l1")
# What a network is for: pictures as they are, or with the damage of scans and photos, see
# data/mixture.py.
FAMILIES = ("clean", "photo")
# A warm-up takes no more than this share of a run, so that short ones reach their peak.
SHORT = 0.1


@dataclass(frozen=True, slots=True)
class Schedule:
    """How a network is trained.

    steps, seconds: where the learning rate reaches zero, whichever comes first; at least one of
    them.
    batch: crops in a step.
    crop: input pixels a side.
    rate: peak learning rate.
    warmup: steps until the peak, if not a tenth of the run.
    clip: largest gradient norm.
    ema: share of the running mean that a step keeps.
    seed: of crops and weights.
    bf16: compute in bfloat16 where autocast does.
    loss: of plain networks, of LOSS_NAMES.
    family: of FAMILIES.
    """

    steps: int | None = None
    seconds: float | None = None
    batch: int = 16
    crop: int = 32
    rate: float = 1e-3
    warmup: int = 200
    clip: float = 1.0
    ema: float = 0.999
    seed: int = 0
    bf16: bool = False
    loss: str = "l1"
    family: str = "clean"


def done_share(schedule: Schedule, step: int, elapsed: float) -> float:
    """How much of the schedule is over, 0..1; ValueError where it has no end."""
    shares = [step / schedule.steps] if schedule.steps else []
    shares += [elapsed / schedule.seconds] if schedule.seconds else []
    if not shares:
        raise ValueError(
            "a schedule without an end cannot decay its learning rate; give --steps or --seconds"
        )
    return min(1.0, max(shares))


def rate_at(schedule: Schedule, step: int, share: float) -> float:
    """Learning rate: a straight warm-up, then half a cosine down to zero.

    Loshchilov and Hutter 2017, SGDR, equation 5. share: of the schedule that is over, 0..1.
    """
    warm = max((step + 1) / max(1, schedule.warmup), share / SHORT)
    return schedule.rate * min(1.0, warm) * 0.5 * (1 + math.cos(math.pi * share))
