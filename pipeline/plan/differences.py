"""Whether a stored plan and a new request ask for the same, and if not, in what they differ.

Compared is what decides over the pixels and can be asked for. What follows from the code alone (its
version, costs, batches) is not: the stored plan is carried out as it was made.
"""

from collections.abc import Mapping
from typing import Any

from tierscale.pipeline.plan.plan import Draft, Plan
from tierscale.pipeline.plan.policies import in_words
from tierscale.pipeline.plan.tiers import Tier

# What is read from a file.
READ = ("shape", "dtype", "colour", "alpha")
# Longest text of a value in a sentence.
SHOWN = 160


def differences(stored: Plan, draft: Draft, finished: bool = False) -> list[str]:
    """What the two disagree in, in words: `tile 128, now 64`. Empty: the stored plan will do.

    finished: nothing is left to do by the stored plan, so it does not matter if this version reads
    the same file otherwise.
    """
    before, now = _requested(stored), _requested(draft)
    if finished and before["source"]["identity"] == now["source"]["identity"]:
        for name in READ:
            del now[name]
    found = []
    if stored.family and draft.family and stored.family != draft.family:
        found.append(f"family {stored.family}, now {draft.family}")
    for name, value in now.items():
        old = before[name]
        if name == "source":
            changed = [key for key in value if old.get(key) != value[key]]
            old, value = ({key: one.get(key) for key in changed} for one in (old, value))
        if old != value:
            found.append(f"{name} {_short(old)}, now {_short(value)}")
    return found


def outdated(stored: Plan, draft: Draft) -> bool:
    """Whether the same is asked of the same file, and only what the file holds is another."""
    before, now = _requested(stored), _requested(draft)
    for requested in (before, now):
        for name in READ:
            del requested[name]
        del requested["source"]["identity"]
    return stored.source.uri == draft.source.uri and before == now


def _requested(plan: Draft) -> dict[str, Any]:
    """What was asked for, by the name that a sentence gives it."""
    return {
        "source": plan.source.to_json(),
        "shape": list(plan.shape),
        "dtype": plan.dtype,
        "colour": plan.colour,
        "alpha": plan.alpha,
        "scale": str(plan.scale),
        "tile": plan.tile,
        "blend": plan.blend,
        "tiers": [_tier_in_words(tier) for tier in plan.tiers],
        "policy": in_words(plan.policy),
        "statistics": plan.statistics,
        "device": plan.device,
        "precision": plan.precision,
    }


def _tier_in_words(tier: Tier) -> str:
    effort = format(tier.effort, "g")
    if tier.auto:  # with what the scale made of it
        effort = "auto" if tier.effort == 1 else f"auto={effort}"
    return f"{tier.name}@{effort}#{tier.weights[:8]}"


def _short(value: Any) -> str:
    """A JSON value as text of bounded length."""
    if isinstance(value, Mapping):
        text = ", ".join(f"{key} {one}" for key, one in value.items())
    elif isinstance(value, list):
        text = ", ".join(map(str, value))
    else:
        text = "none" if value is None else str(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"
