"""What the plan of an output that was begun lends to a request that goes on with it."""

from collections.abc import Iterator

from tierscale.pipeline.geometry.grid import tile_length
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.plan.plan import Plan, bytes_version
from tierscale.pipeline.plan.policies import in_words


def completed(options: Options, plan: Plan) -> Options:
    """The options with the plan's values for those that nobody wrote.

    A version with other defaults then goes on with what an earlier one began. Which part of the
    source is meant (region, series, level, z, t) is always what is asked for: where it is not
    written it is the whole image, or the first. The tile of a plan may be larger than one that can
    be asked for, and is taken from the plan itself.
    """
    kept: dict[str, object] = {"scale": plan.scale}
    if plan.family in ("clean", "none"):
        options = options.altered(denoise=1.0)
    own_family = "family" in options.written and options.family not in ("auto", plan.family)
    if not own_family and ("denoise" not in options.written or plan.family != "photo"):
        # A family or a strength that is written asks for its own tiers.
        kept["tiers"] = tuple(tier.label for tier in plan.tiers)
    if plan.family in ("clean", "photo"):
        kept["family"] = plan.family
    return options.completed(
        **kept,
        policy=plan.policy,
        blend=plan.blend,
        value_range=plan.source.value_range,
        exact_statistics=plan.statistics == "exact",
    )


def kept_options(options: Options, plan: Plan) -> list[str]:
    """A note on options that nobody wrote, where the plan's are not this version's defaults."""
    kept = [
        f"{name} {before} (by default {now})"
        for name, before, now in _pairs(options, plan)
        if name not in options.written and before != now
    ]
    if not kept:
        return []
    return [
        f"what was not asked for is as the output was begun: {', '.join(kept)}; --overwrite begins"
        " anew with the defaults"
    ]


def _pairs(options: Options, plan: Plan) -> Iterator[tuple[str, str, str]]:
    """Names of options, with the plan's values and those that would be taken now, in words."""
    yield "scale", str(plan.scale), str(options.scale)
    if plan.family != "none" and "family" not in options.written:
        family = plan.family or "clean"
        usual = options.completed(scale=plan.scale, family=family).tier_labels
        yield "tiers", " ".join(tier.label for tier in plan.tiers), " ".join(usual)
    yield "policy", in_words(plan.policy), in_words(options.policy)
    yield "tile", str(plan.tile), str(tile_length(options.tile, plan.scale))
    yield "blend", str(plan.blend), str(options.blend)
    if plan.statistics is not None:
        exact = "exact" if options.exact_statistics else "sample"
        yield "exact_statistics", plan.statistics, exact
    yield "value_range", _range(plan.source.value_range), _range(options.value_range)


def _range(bounds: tuple[float, float] | None) -> str:
    return "from the image" if bounds is None else f"{bounds[0]:g},{bounds[1]:g}"


def other_bytes(plan: Plan, left: int) -> list[str]:
    """A note where an earlier or later version would have written other bytes by the same plan.

    left: shards that are still to be made.
    """
    now = bytes_version()
    if plan.bytes_version == now:
        return []
    begun = f"the output was begun with bytes_version {plan.bytes_version}"
    if not left:
        return [f"{begun}, and this version writes {now}; nothing was written again"]
    return [
        f"{begun} and goes on with {now}: what is written now may differ slightly from"
        " what that version would have written; each receipt holds the version of its shard"
    ]
