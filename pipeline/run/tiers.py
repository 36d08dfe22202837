"""What the tiers of a request are: labels to `Tier`s."""

import itertools
from collections.abc import Sequence
from fractions import Fraction

from tierscale.models import registry
from tierscale.models import weights as zoo
from tierscale.models.contract.efforts import Efforts
from tierscale.models.contract.upscaler import EffortByScale, OnGrid, Upscaler
from tierscale.models.mixed import mixed_digest, parse_mix
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.inference.statistics import Automatic
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.plan.plan import Draft, Plan
from tierscale.pipeline.plan.precision import BFLOAT16, Hardware, Precision, asks_for, resolve
from tierscale.pipeline.plan.tiers import ENDLESS_REACH, Tier
from tierscale.pipeline.storage.path_policy import check_secrets


def same_tiers(stored: Sequence[Tier], options: Options) -> bool:
    """Whether a stored plan's tiers are those that are asked for.

    The name of a network stands for its newest weights, and a plan that was begun keeps those of
    its time. file:PATH stands for what the file holds.
    """
    if "tiers" not in options.written and options.tiers is not None:
        return True  # they are the stored ones
    asked = [registry.parse_tier(label) for label in options.tier_labels]
    # What @auto stood for when the plan was made stays as it is.
    same = [(name, "auto" if text == "auto" else _effort_of(text)) for name, text in asked] == [
        (tier.name, "auto" if tier.auto else tier.effort) for tier in stored
    ]
    files = [tier for tier in stored if "file:" in tier.name]
    return same and all(registry.holds(tier.name, tier.weights) for tier in files)


def missing_weights(tiers: Sequence[Tier]) -> str | None:
    """Which weights of a stored plan are not here, in words; None: all are."""
    for tier in tiers:
        if not registry.holds(tier.name, tier.weights):
            return f"the weights {tier.weights[:12]} of {tier.name}"
    return None


def kept_weights(tiers: Sequence[Tier]) -> list[str]:
    """A note on networks whose names stand for other weights now than in a stored plan."""
    bases = {zoo.parse_turns(tier.name)[0]: tier.weights for tier in tiers}
    others = [name for name in bases if _newest(name) not in (None, bases[name])]
    if not others:
        return []
    named = ", ".join(f"{name} ({bases[name][:8]})" for name in others)
    return [
        f"the output keeps the weights that it was begun with: {named}; --overwrite begins anew"
        " with this version's"
    ]


def _newest(name: str) -> str | None:
    """The digest that a name of networks of the zoo stands for now, by their cards; None: no such.

    missing_weights() tells of networks that are gone, where they are needed.
    """
    known, parts = zoo.networks(), parse_mix(name)
    if not all(one in known for one in ([part.name for part in parts] or [name])):
        return None
    if parts:
        return mixed_digest(parts, [zoo.newest(part.name) for part in parts])
    return zoo.newest(name)


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
    auto, effort = effort_text == "auto", _effort_of(effort_text)
    if not name or ("@" in name and not name.startswith("file:")) or effort > 1:
        raise Refused(
            f"a tier {label!r} is not written NAME, NAME@EFFORT with an effort of 0 to 1, or"
            " NAME@auto"
        )
    loaded = _load(name)
    upscaler = loaded.upscaler
    _check_tier(name, effort_text, effort, upscaler, scale)
    if auto and isinstance(upscaler, EffortByScale):
        effort = upscaler.effort_by_scale(scale)
    reach = upscaler.reach if upscaler.reach is not None else ENDLESS_REACH
    cost, memory = upscaler.cost(scale, effort), upscaler.memory(scale)
    multiple = upscaler.multiple if isinstance(upscaler, OnGrid) else 1
    return Tier(name, loaded.weights, effort, cost, reach, memory, auto, multiple)


def _load(name: str, weights: str | None = None) -> registry.Loaded:
    """As registry.load_weights(). Refused: it cannot."""
    try:
        return registry.load_weights(name, weights=weights)
    except (ValueError, FileNotFoundError) as error:
        raise Refused(str(error)) from error


def _effort_of(text: str) -> float:
    """An effort as registry.parse_tier() gives it, as a share."""
    return 1.0 if text in ("", "auto") else float(text)


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
    if effort_text == "auto" and not isinstance(upscaler, Automatic | EffortByScale):
        raise Refused(
            f"{name} has no automatic effort, neither by statistics of the image nor by the scale;"
            f" write {name} without @auto"
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


def in_bfloat16(tiers: Sequence[Tier]) -> list[Tier]:
    """Those tiers whose networks can be computed in bfloat16, of weights that are here."""
    here = [tier for tier in tiers if registry.holds(tier.name, tier.weights)]
    return [tier for tier in here if _load(tier.name, tier.weights).upscaler.has_bfloat16]


def precision_of(
    options: Options, tiers: Sequence[Tier], hardware: Hardware, begun: Plan | None = None
) -> Precision:
    """The precision of the plan: of the stored one where nothing else is asked for."""
    if begun is not None and asks_for(options.precision, begun.precision):
        return begun.precision
    able = hardware.bfloat16 is not None and bool(in_bfloat16(tiers))
    return resolve(options.precision, hardware, able)


def float32_notes(draft: Draft) -> tuple[str, ...]:
    """What is to be said of networks that stay float32 in a plan of bfloat16."""
    if draft.precision not in BFLOAT16:
        return ()
    able = in_bfloat16(draft.tiers)
    others = [tier for tier in draft.tiers if tier not in able and tier.name != "bicubic"]
    if not others:
        return ()
    named = ", ".join(tier.label for tier in others)
    return (f"{named} computed in float32: bfloat16 was not shown to be good enough there",)


def reads_statistics(tiers: Sequence[Tier]) -> bool:
    """Whether what NAME@auto stands for is found in the image for any of some tiers."""
    autos = [tier for tier in tiers if tier.auto]
    return any(isinstance(_load(one.name, one.weights).upscaler, Automatic) for one in autos)


def effort_notes(tiers: Sequence[Tier], scale: Fraction) -> tuple[str, ...]:
    """What is to be said of efforts, and of networks of others.

    What @auto is at this scale, less than a tier's least, or measured at another scale.
    """
    notes: list[str] = []
    for tier in tiers:
        if tier.name.startswith("file:") and registry.holds(tier.name, tier.weights):
            notes += registry.facts(tier.name)["notes"]
        full = tier.effort == 1 and not tier.auto
        if full or not registry.holds(tier.name, tier.weights):
            continue
        upscaler = _load(tier.name, tier.weights).upscaler
        if upscaler.efforts is None:
            continue
        if not tier.auto:
            notes += _notes_of_effort(tier, upscaler.efforts, scale)
        elif isinstance(upscaler, EffortByScale):
            setting = f"{upscaler.efforts.control} {upscaler.efforts.setting(tier.effort):g}"
            notes.append(f"{tier.label} runs at {setting}, its paper's for scale {scale}")
    return tuple(notes)


def _notes_of_effort(tier: Tier, efforts: Efforts, scale: Fraction) -> list[str]:
    notes = []
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
    return notes
