"""What a result depends on, in three steps of growing knowledge: Draft, ScoredPlan, Plan.

Each type is whole when it is made; none has fields that are filled in later. A later step is an
earlier one with more fields, so what needs little takes a `Draft` and accepts all three.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import Literal

import numpy as np

from tierscale.models.contract.kind import Kind
from tierscale.pipeline.geometry.grid import Grid
from tierscale.pipeline.geometry.layout import Work, lay_out
from tierscale.pipeline.plan.evidence import Audit, Evidence
from tierscale.pipeline.plan.policies import Policy
from tierscale.pipeline.plan.precision import Precision
from tierscale.pipeline.plan.source import SourceRef
from tierscale.pipeline.plan.tiers import Tier, Weights
from tierscale.pipeline.plan.value_range import ValueRange
from tierscale.pipeline.version import code_version

# Raised only when the same plan gives other bytes than before. What each version gives stands in
# tests/golden/bytes_version.json.
BYTES_VERSION = 2

# Which networks the default tiers are: "auto" until the image was looked at, "none" where no one is
# better than bicubic.
Family = Literal["auto", "clean", "photo", "none"]
# How tiles are scored: by the difference of a network from bicubic, by local energy where no
# network is light enough, or not at all. Plans of version 0.1 and 0.2: by a scout, a network fitted
# to predict errors, or by plain detail.
Scoring = Literal["difference", "energy", "none", "scout", "detail"]
Settings = tuple[Mapping[str, float], ...]


def bytes_version() -> int:
    """The version of the bytes that this version of tierscale writes."""
    return BYTES_VERSION


@dataclass(frozen=True, kw_only=True)
class Draft:
    """One image's work as far as it is known without its pixels. Sizes are in input pixels.

    shape: channels, height, width. colour: "grey", "rgb", "rgba", "greya" or "channels". alpha:
    "straight", "premultiplied" or None. tiers: from light to full. statistics: "exact" or "sample"
    where a tier decides by statistics of the image, else None. device: kind of device of the
    workers, "cpu" or "cuda". precision: of the networks' weights and maps; those that cannot be in
    bfloat16 are float32 in any plan. batch: windows in one call, for each tier. scoring: how tiles
    are scored; scorer: the network whose difference from bicubic is the score, or None. family: of
    the tiers, None where a person named them; kind: of picture, where it was looked at. code:
    version of tierscale.
    """

    source: SourceRef
    shape: tuple[int, int, int]
    dtype: str
    colour: str
    alpha: str | None
    scale: Fraction
    tile: int
    blend: int
    tiers: tuple[Tier, ...]
    policy: Policy
    statistics: str | None
    device: str
    batch: tuple[int, ...]
    scoring: Scoring
    scorer: Weights | None
    family: Family | None = None
    kind: Kind | None = None
    precision: Precision = "fp32"
    code: str = field(default_factory=code_version)
    bytes_version: int = field(default_factory=bytes_version)

    @cached_property
    def grid(self) -> Grid:
        """How the image is cut into tiles and shards."""
        return Grid((self.shape[1], self.shape[2]), self.scale, self.tile)

    @property
    def full(self) -> int:
        """Index of the full tier, the last of the list."""
        return len(self.tiers) - 1

    @property
    def reaches(self) -> tuple[int, ...]:
        """Input pixels that each tier looks at on each side."""
        return tuple(tier.reach for tier in self.tiers)

    @property
    def halo(self) -> int:
        """Context around a window of the tier that looks farthest, in input pixels."""
        return max(tier.reach + tier.multiple - 1 for tier in self.tiers) + self.blend

    @property
    def hr_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the output."""
        return (self.shape[0], *self.grid.hr_size)

    @property
    def rgb_count(self) -> int:
        """RGB triples that the networks are given: one for colours, else one for each channel."""
        return 1 if self.colour in ("rgb", "rgba", "greya") else self.shape[0]


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoredPlan(Draft):
    """A draft after the prescan. Each equals itself alone: nobody asks whether scores are alike.

    settings: arguments of each tier at every call, by name, such as its exit threshold.
    scores: predicted mean squared error (values 0..1) of each tile under each tier, float32
    (tiles, tiers), rows of tiles one after another. evidence: what they rest on.
    """

    value_range: ValueRange
    settings: Settings
    scores: np.ndarray = field(repr=False)
    evidence: Evidence

    # Those of Draft, which would be inherited, leave out the scores.
    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan(Draft):
    """All that the bytes of an output depend on. Two plans are equal when their digests are.

    routes: index of the tier of each tile, int64 (rows, columns). evidence: what predicted errors
    rest on; None: nothing was predicted, or by a scout. audit: what the routes lose against the
    full tier everywhere; None: nothing, or it is not known in dB. digest: SHA-256, hex, over the
    stored form of all fields but the source's address; `pipeline.plan.stored` makes it.
    """

    value_range: ValueRange
    settings: Settings
    routes: np.ndarray = field(repr=False)
    evidence: Evidence | None
    audit: Audit | None
    digest: str

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Plan) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    @property
    def knows_errors(self) -> bool:
        """Whether the predicted errors of tiles are errors, and not only an order."""
        card = self.evidence is not None and self.evidence.known == "card"
        return card or self.scoring == "scout"

    def works(self, shard: tuple[int, int]) -> list[Work]:
        """All windows of one shard."""
        around = [tier.surroundings for tier in self.tiers]
        return lay_out(self.grid, self.routes, shard, around, self.blend)

    @property
    def tile_counts(self) -> dict[str, int]:
        """Tiles of each tier, by label, from light to full."""
        counts = np.bincount(self.routes.ravel(), minlength=len(self.tiers))
        return {tier.label: int(count) for tier, count in zip(self.tiers, counts, strict=True)}
