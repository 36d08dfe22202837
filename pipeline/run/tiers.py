"""What the tiers of a request are: labels to `Tier`s, and the scout that knows them."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from tierscale.models import registry
from tierscale.models.contract.upscaler import Upscaler
from tierscale.models.scout import Scout
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.inference.statistics import Automatic
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.plan.plan import Scoring
from tierscale.pipeline.plan.policies import compares_errors, looks_at_tiles
from tierscale.pipeline.plan.tiers import ENDLESS_REACH, Tier
from tierscale.pipeline.storage.path_policy import check_secrets


@dataclass(frozen=True, slots=True)
class TileScorer:
    """How tiles are scored, and the scout where it is one that does it."""

    scoring: Scoring
    scout: Scout | None

    @property
    def digest(self) -> str | None:
        """SHA-256 of the scout's weights, hex."""
        return None if self.scout is None else self.scout.weights


def family_of(tiers: Sequence[Tier]) -> str | None:
    """The family of networks that tiers belong to, by their cards; None: of none, or of several."""
    families = {registry.card(tier.name).get("family") for tier in tiers} - {None}
    return str(families.pop()) if len(families) == 1 else None


def check_options(options: Options) -> None:
    """Refuse what cannot work whatever the image is: tiers, and a scout missing or not theirs."""
    find_scorer(load_tiers(options.tier_labels, options.scale), options)


def find_scorer(tiers: Sequence[Tier], options: Options) -> TileScorer:
    """A scout where one was fitted for these tiers, plain detail otherwise, or none where no policy
    asks. Refused: the policy compares errors, and no scout knows them.
    """
    labels = [tier.label for tier in tiers]
    named = _named_scout(labels, options)
    policy = options.policy
    if not looks_at_tiles(policy) or len(tiers) == 1:
        if named is not None:
            raise Refused(
                f"policy {policy.name} scores no tiles, so the scout {options.scout} would be"
                " ignored; leave it out"
            )
        return TileScorer("none", None)
    scout = named or registry.load_scout(labels, options.scale)
    if scout is None and compares_errors(policy):
        raise Refused(
            f"policy {policy.name} compares predicted errors, and no scout knows"
            f" {', '.join(labels)}; use --budget or --policy adaptive, or run tierscale scout fit"
            f" --scale {options.scale}"
        )
    return TileScorer("detail" if scout is None else "scout", scout)


def _named_scout(labels: Sequence[str], options: Options) -> Scout | None:
    check_secrets(options.scout or "")
    if options.scout is None:
        return None
    try:
        return registry.open_scout(Path(options.scout), labels, options.scale)
    except ValueError as error:
        raise Refused(str(error)) from error


def load_tiers(labels: Sequence[str], scale: Fraction) -> tuple[Tier, ...]:
    """What a plan remembers of each tier.

    Refused: none, unknown, one named twice, a scale not offered, or not in order of cost.
    """
    check_secrets(",".join(labels))
    if not labels:
        raise Refused("no tiers were named; write for example --tiers bicubic,fsrcnn-x4")
    if len(set(labels)) != len(labels):
        raise Refused(f"the tiers {', '.join(labels)} name one twice; name each once")
    tiers = tuple(_load_tier(label, scale) for label in labels)
    for light, full in itertools.pairwise(tiers):
        if light.cost >= full.cost:
            raise Refused(
                f"tiers go from light to full, but {light.label} costs {light.cost:.0f}"
                f" multiply-adds a pixel and {full.label} {full.cost:.0f}; change their order"
            )
    return tiers


def _load_tier(label: str, scale: Fraction) -> Tier:
    name, effort_text = registry.parse_tier(label)
    auto = effort_text == "auto"
    effort = 1.0 if auto or not effort_text else float(effort_text)
    if not name or ("@" in name and not name.startswith("file:")) or effort > 1:
        raise Refused(
            f"a tier {label!r} is not written NAME, NAME@EFFORT with an effort of 0 to 1, or"
            " NAME@auto"
        )
    try:
        upscaler = registry.load(name)
    except (ValueError, FileNotFoundError) as error:
        raise Refused(str(error)) from error
    _check_tier(name, effort_text, effort, upscaler, scale)
    reach = upscaler.reach if upscaler.reach is not None else ENDLESS_REACH
    cost, memory = upscaler.cost(scale, effort), upscaler.memory(scale)
    return Tier(name, registry.digest(name), effort, cost, reach, memory, auto)


def _check_tier(
    name: str, effort_text: str, effort: float, upscaler: Upscaler, scale: Fraction
) -> None:
    """Refuse a scale or an effort that an upscaler does not offer."""
    if upscaler.scales is not None and scale not in upscaler.scales:
        offered = ", ".join(f"x{s}" for s in sorted(upscaler.scales))
        raise Refused(
            f"{name} was not made for scale {scale}, only for {offered}; choose other tiers"
            " (tierscale models lists them)"
        )
    if effort_text == "auto" and not isinstance(upscaler, Automatic):
        raise Refused(
            f"{name} does not decide by statistics of the image; write {name} without @auto"
        )
    if effort < 1 and upscaler.control is None:
        raise Refused(
            f"{name} has no effort control: it runs at full effort only; write {name} without"
            f" @{effort_text}"
        )
    if effort < 1 and upscaler.efforts is None:
        raise Refused(
            f"what {name} costs at an effort of {effort_text} was not measured; run tierscale"
            f" models calibrate {name} --hr DIR"
        )


def effort_notes(tiers: Sequence[Tier], scale: Fraction) -> tuple[str, ...]:
    """What is to be said of efforts: less than a tier's least, or measured at another scale."""
    notes = []
    for tier in tiers:
        efforts = registry.load(tier.name).efforts if tier.effort < 1 else None
        if efforts is None:
            continue
        if tier.effort < efforts.floor:
            notes.append(
                f"{tier.label} runs at {efforts.floor:.2f} of its full computation, the least that"
                f" {tier.name} can"
            )
        if efforts.measured.get("scale", str(scale)) != str(scale):
            notes.append(
                f"what {tier.label} costs was measured at scale {efforts.measured['scale']}; at"
                f" {scale} it may cost more or less"
            )
    return tuple(notes)
