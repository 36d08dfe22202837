"""How the tiles of a request are scored, and what is known of the scores beforehand."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from tierscale.models import registry
from tierscale.models import weights as zoo
from tierscale.models.contract.gains import Gains, kinds, nearest_kind, read_gains
from tierscale.models.contract.kind import Kind
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.plan.plan import Scoring
from tierscale.pipeline.plan.policies import MaxLoss, Policy, needs_scores
from tierscale.pipeline.plan.tiers import Tier, Weights
from tierscale.pipeline.run.tiers import load_tiers

# Share of the cost of the full tier that scoring an image may take.
SHARE = 0.03
# The name that cards know local energy by.
ENERGY = "energy"


@dataclass(frozen=True, slots=True)
class TileScorer:
    """How tiles are scored.

    network: whose difference from bicubic it is, where scoring is "difference". gains: what the
    card of the full tier knows of such scores on a kind of picture; None: nothing. kind: its name.
    """

    scoring: Scoring
    network: Weights | None = None
    gains: Gains | None = None
    kind: str = "clean"


def check_options(options: Options) -> None:
    """Refuse what cannot work whatever the image is: tiers, and a loss that cannot be held."""
    tiers = load_tiers(options.tier_labels, options.scale)
    if "policy" in options.written:
        find_scorer(tiers, options.scale, options.policy)


def find_scorer(
    tiers: Sequence[Tier], scale: Fraction, policy: Policy, kind: Kind | None = None
) -> TileScorer:
    """The dearest network that is light enough, else local energy, or none where no policy asks.

    kind: of picture; None: nobody looked, and it counts as clean. Refused: the policy holds a loss
    in dB, and the full tier's card does not know it.
    """
    if not needs_scores(policy) or len(tiers) == 1:
        return TileScorer("none")
    network = light_network(tiers, scale)
    name = nearest_kind(kind, kinds(zoo.card(tiers[-1].name)))
    gains = known_gains(tiers, network, name)
    if gains is None and isinstance(policy, MaxLoss):
        labels = ", ".join(tier.label for tier in tiers)
        raise Refused(
            f"policy {policy.name} holds a loss in dB, and what {labels} lose was not measured;"
            " use --budget 0.5"
        )
    return TileScorer("energy" if network is None else "difference", network, gains, name)


def is_measured(tiers: Sequence[Tier], scale: Fraction) -> bool:
    """Whether the card of the full tier knows what the lighter ones lose, at least when clean."""
    return known_gains(tiers, light_network(tiers, scale), "clean") is not None


def light_network(tiers: Sequence[Tier], scale: Fraction) -> Weights | None:
    """The dearest network whose pass over an image costs at most SHARE of the full tier.

    It is one of the tiers, or FSRCNN of the scale.
    """
    own = [(tier.cost, tier) for tier in tiers[:-1] if _is_plain(tier) and tier.name != "bicubic"]
    found = [(cost, Weights(tier.name, tier.weights)) for cost, tier in own]
    name = f"fsrcnn-x{scale}"
    if name in zoo.networks() and name not in [tier.name for tier in tiers]:
        cost = registry.load(name).cost(scale)
        found.append((cost, Weights(name, registry.digest(name))))
    light = [pair for pair in found if pair[0] <= SHARE * tiers[-1].cost]
    return max(light, key=lambda pair: pair[0])[1] if light else None


def _is_plain(tier: Tier) -> bool:
    return tier.effort == 1 and not tier.auto


def known_gains(tiers: Sequence[Tier], network: Weights | None, kind: str) -> Gains | None:
    """What the card of the full tier knows of the lighter ones; None: not all of it."""
    if not all(_is_plain(tier) for tier in tiers):
        return None
    names = {tier.name: tier.weights for tier in tiers}
    if network is not None:
        names = {network.name: network.weights, **names}
    score = ENERGY if network is None else network.name
    return read_gains(zoo.card(tiers[-1].name), names, score, kind)
