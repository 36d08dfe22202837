"""Which family of networks an image gets: the one that is expected to err least on it."""

import math

from tierscale.models.kind import Judgement, load_kind_network
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.plan.plan import Draft, Family
from tierscale.pipeline.run.draft import Inspection, in_family
from tierscale.pipeline.run.prescan import Prescan

# The photo family must be expected to be better than the clean one by so many dB: where they are
# alike, the clean one leaves the picture's own grain. By more where no damage is to be seen.
ADVANTAGE, UNSEEN_ADVANTAGE = 0.05, 0.4
# And a network better than bicubic by so many.
HELP = 0.05


def decided(inspection: Inspection, options: Options, prescan: Prescan) -> Inspection:
    """The inspection with its family, for which the image is looked at if need be."""
    draft = inspection.draft
    network = load_kind_network(draft.scale) if draft.family == "auto" else None
    if network is None:
        return inspection
    judgement = prescan.judge(draft, network, inspection.source.jpeg_quality)
    if judgement is None:
        return in_family(inspection, options, "clean", None)
    family = choose(judgement, may_refuse="policy" not in options.written)
    return in_family(inspection, options, family, judgement.kind)


def choose(judgement: Judgement, may_refuse: bool) -> Family:
    """The family that is expected to err least.

    may_refuse: "none" is an answer, where bicubic is expected to be as good as both.
    """
    clean, photo = judgement.families["clean"], judgement.families["photo"]
    needed = ADVANTAGE if judgement.kind.damage else UNSEEN_ADVANTAGE
    photo_is_better = decibels(clean, photo) >= needed
    network = photo if photo_is_better else clean
    if may_refuse and decibels(judgement.bicubic, network) < HELP:
        return "none"
    return "photo" if photo_is_better else "clean"


def decibels(worse: float, better: float) -> float:
    """By how much one mean squared error is below another."""
    return 10 * math.log10(worse / better)


def sentence(draft: Draft) -> list[str]:
    """A note on the family that was chosen for an image, if it was looked at."""
    if draft.kind is None or draft.family not in SENTENCES:
        return []
    damage = ", ".join(draft.kind.damage)
    seen = damage or ("an unusual kind" if draft.family == "photo" else str(draft.kind))
    return [f"{seen}: {SENTENCES[draft.family]}"]


SENTENCES: dict[Family | None, str] = {
    "clean": "clean networks (--family photo takes the others)",
    "photo": "photo networks (--family clean takes the others)",
    "none": "no network is expected to be better than bicubic on it, which makes every tile"
    " (--family clean or photo takes networks all the same)",
}
