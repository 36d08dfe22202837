"""Everything a result depends on, checked and frozen, with one digest."""

import base64
import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from tierscale.models.adaptive.anysr import network as anysr
from tierscale.models.scout import Scout
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.geometry.grid import Grid
from tierscale.pipeline.geometry.layout import Work, lay_out
from tierscale.pipeline.inference.normalise import ValueRange

# On CPU and GPU alike, after docs/choosing.md: EDSR is better than CARN at a third of its cost; the
# adaptive methods are no better than it at the same cost, reach further beyond each tile, and
# cannot promise a budget. At x2 there is no EDSR.
DEFAULT_TIERS = {
    Fraction(4): ("bicubic", "fsrcnn-x4", "edsr-x4"),
    Fraction(3): ("bicubic", "fsrcnn-x3", "edsr-x3"),
    Fraction(2): ("bicubic", "fsrcnn-x2", "carn-x2"),
}
# From the least scale that it was trained for up to 8, the one network of any scale gains 0.9 to 4
# dB over bicubic (docs/scales.csv), which is worth that it looks at whole windows, so that its
# tiles are blended.
ANY_SCALE = ("bicubic", "anysr-edsr")
# Tiers without a finite reach (they pool over the window) get this much context instead.
ENDLESS_REACH = 32
# Policies that give all tiles one tier, and look at none.
UNSCORED = ("dearest", "cheapest")
# Policies that an option alone asks for.
IMPLIED = {"budget": "budget", "lose": "quality", "deadline": "deadline", "threshold": "threshold"}
# Parts of a plan that differ where policy or tiers do.
FOLLOWING = ("scores", "batch")


def code_version() -> str:
    """Version of the installed tierscale, which is part of every plan."""
    try:
        return version("tierscale")
    except PackageNotFoundError:
        return "0.1.0+source"


@dataclass(frozen=True, slots=True)
class Tier:
    """An upscaler held at one effort, as the plan remembers it.

    name: what models.load understands. weights: SHA-256 of the checkpoint, hex. effort: share of
    its full computation, 0..1. cost: multiply-adds for each input pixel of a large window. reach:
    input pixels on each side. memory: bytes that enlarging takes for each input pixel of a window.
    auto: thresholds of the image decide; the cost is the most.
    """

    name: str
    weights: str
    effort: float
    cost: float
    reach: int
    memory: float
    auto: bool = False

    @property
    def label(self) -> str:
        """How the tier is written: NAME, NAME@EFFORT below full effort, or NAME@auto."""
        if self.auto:
            return f"{self.name}@auto"
        return self.name if self.effort == 1 else f"{self.name}@{self.effort:g}"


@dataclass(frozen=True, slots=True)
class Options:
    """What a person asks for, as far as the result depends on it.

    tiers: labels, cheap to dear; None: the defaults of the scale. blend, tile: input pixels.
    value_range: values that become 0 and 1. region: x, y, width, height of a crop of the input.
    nodata: value that marks missing pixels, beside what the file says. exact_statistics: tiers that
    decide by statistics of the image look at all of it, at full price, and not at a sample. lose:
    dB that policy quality may lose. deadline: seconds that policy deadline may take. scout: file of
    a scout, beside those known. pooled: the budget is that of a whole archive, which this image has
    its part of.
    """

    scale: Fraction = Fraction(4)
    tiers: tuple[str, ...] | None = None
    policy: str = "adaptive"
    budget: float | None = None
    threshold: float | None = None
    tile: int = 128
    blend: int = 4
    device: str = "auto"
    value_range: tuple[float, float] | None = None
    region: tuple[int, int, int, int] | None = None
    series: int | None = None
    level: int = 0
    z: int | None = None
    t: int | None = None
    nodata: float | None = None
    exact_statistics: bool = False
    lose: float | None = None
    deadline: float | None = None
    scout: str | None = None
    pooled: bool = False

    def __post_init__(self) -> None:
        from tierscale.pipeline.routing.policies import POLICIES

        if not Fraction(1) <= self.scale <= 64:
            raise Refused(
                f"scale {self.scale} is not between 1 and 64; give --scale 2, 3, 4 or a fraction"
                " such as 5/2"
            )
        if self.policy not in POLICIES:
            raise Refused(
                f"there is no policy {self.policy!r}; choose one of {', '.join(POLICIES)}"
            )
        if self.policy == "budget" and self.budget is None:
            raise Refused(
                "policy budget needs --budget SHARE, for example 0.5 for half the cost of the"
                " dearest tier"
            )
        if self.budget is not None and not 0 < self.budget <= 1:
            raise Refused(
                f"a budget of {self.budget:g} is not a share above 0 and up to 1 of the dearest"
                " tier's cost"
            )
        if (self.policy == "threshold" and self.threshold is None) or (
            self.threshold is not None and not 0 <= self.threshold < np.inf
        ):
            raise Refused(
                "policy threshold needs --threshold X of 0 or more (squared error), not"
                f" {self.threshold}"
            )
        if (self.policy == "quality" and self.lose is None) or (
            self.lose is not None and not 0 <= self.lose < np.inf
        ):
            raise Refused(
                f"policy quality needs --lose DB of 0 or more, for example 0.02, not {self.lose}"
            )
        if (self.policy == "deadline" and self.deadline is None) or (
            self.deadline is not None and not 0 < self.deadline < np.inf
        ):
            raise Refused(
                "policy deadline needs --deadline TIME above 0, such as 6h or 90m, not"
                f" {self.deadline}"
            )
        if not 8 <= self.tile <= 4096:
            raise Refused(f"a tile of {self.tile} pixels is not between 8 and 4096")
        if self.scale.denominator > 128:
            raise Refused(
                f"scale {self.scale} would need tiles of {self.scale.denominator} pixels; write"
                f" {float(self.scale):.1f}"
            )
        if not 0 <= self.blend <= self.tile // 2:
            raise Refused(
                f"a blend of {self.blend} pixels is not between 0 and half the tile"
                f" ({self.tile // 2})"
            )
        if (
            self.value_range is not None
            and not -np.inf < self.value_range[0] < self.value_range[1] < np.inf
        ):
            raise Refused(
                f"a range from {self.value_range[0]:g} to {self.value_range[1]:g} does not rise;"
                " give --range LO,HI"
            )

    @property
    def tier_labels(self) -> tuple[str, ...]:
        """The tiers asked for, or the defaults of this scale."""
        if self.tiers is not None:
            return self.tiers
        return (
            DEFAULT_TIERS.get(self.scale, ANY_SCALE) if self.scale >= anysr.LEAST else ("bicubic",)
        )


@dataclass(frozen=True)
class Plan:
    """One image's work, frozen. Sizes in input pixels; routes: (rows, columns) of tier indices, or
    None before routing.

    source: uri, identity, selection, region. batch: windows in one call, for each tier. device:
    kind, such as "cpu". threads: torch threads of each worker. scores: how tiles were scored
    ("scout", "detail", "none"). code: version of tierscale. given: what each tier is given at every
    call, by name, such as its knob's setting; None before the pre-pass. scout: what scores the
    tiles, as long as there are no routes; it is not stored, but its digest is, in `policy`.
    """

    source: Mapping[str, Any]
    shape: tuple[int, int, int]
    dtype: str
    colour: str
    alpha: str | None
    scale: Fraction
    tile: int
    blend: int
    tiers: tuple[Tier, ...]
    policy: Mapping[str, Any]
    device: str
    threads: int
    batch: tuple[int, ...]
    scores: str
    levels: ValueRange | None = None
    routes: np.ndarray | None = field(default=None, repr=False)
    given: tuple[Mapping[str, float], ...] | None = None
    code: str = field(default_factory=code_version)
    scout: Scout | None = field(default=None, repr=False, compare=False)

    @cached_property
    def grid(self) -> Grid:
        return Grid((self.shape[1], self.shape[2]), self.scale, self.tile)

    @property
    def reaches(self) -> tuple[int, ...]:
        return tuple(tier.reach for tier in self.tiers)

    @property
    def halo(self) -> int:
        """Context around a window of the tier that looks farthest, in input pixels."""
        return max(self.reaches) + self.blend

    @property
    def hr_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the output."""
        return (self.shape[0], *self.grid.hr_size)

    def works(self, shard: tuple[int, int]) -> list[Work]:
        """All windows of one shard."""
        assert self.routes is not None, "a plan is routed before it is carried out"
        return lay_out(self.grid, self.routes, shard, self.reaches, self.blend)

    def asked(self) -> dict[str, Any]:
        """What was asked, without what the pre-pass found: two runs on one output must agree in
        this.
        """
        plain = self.to_json()
        return {
            key: plain[key]
            for key in plain
            if key not in ("levels", "routes", "given", "digest", "uri")
        }

    @cached_property
    def digest(self) -> str:
        """SHA-256 over all fields, hex. The address of the source is left out: its identity is
        in.
        """
        plain = {key: value for key, value in self.to_json(digest=False).items() if key != "uri"}
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()

    def to_json(self, digest: bool = True) -> dict[str, Any]:
        """The plan as plain JSON values; routes are packed bytes."""
        source = {key: value for key, value in self.source.items() if key != "ingested"}
        result: dict[str, Any] = {
            "uri": source.pop("uri"),
            "source": source,
            "shape": list(self.shape),
            "dtype": self.dtype,
            "colour": self.colour,
            "alpha": self.alpha,
            "scale": str(self.scale),
            "tile": self.tile,
            "blend": self.blend,
            "tiers": [asdict(tier) for tier in self.tiers],
            "policy": dict(self.policy),
            "device": self.device,
            "threads": self.threads,
            "batch": list(self.batch),
            "scores": self.scores,
            "code": self.code,
            "levels": None if self.levels is None else plain_levels(self.levels),
            "routes": None if self.routes is None else pack(self.routes),
            "given": None if self.given is None else [dict(names) for names in self.given],
        }
        if digest:
            result["digest"] = self.digest
        return result

    @staticmethod
    def from_json(plain: Mapping[str, Any]) -> "Plan":
        """The plan that to_json() wrote; ValueError if its digest does not match its content."""
        levels = plain["levels"]
        plan = Plan(
            source={"uri": plain["uri"], **plain["source"]},
            shape=tuple(plain["shape"]),
            dtype=plain["dtype"],
            colour=plain["colour"],
            alpha=plain["alpha"],
            scale=Fraction(plain["scale"]),
            tile=plain["tile"],
            blend=plain["blend"],
            tiers=tuple(Tier(**tier) for tier in plain["tiers"]),
            policy=plain["policy"],
            device=plain["device"],
            threads=plain["threads"],
            batch=tuple(plain["batch"]),
            scores=plain["scores"],
            code=plain["code"],
            levels=None if levels is None else read_levels(levels),
            routes=None if plain["routes"] is None else unpack(plain["routes"]),
            given=None if plain["given"] is None else tuple(plain["given"]),
        )
        if plan.digest != plain["digest"]:
            raise ValueError(
                f"the stored plan was changed: its content has digest {plan.digest[:12]}, it says"
                f" {plain['digest'][:12]}"
            )
        return plan

    def frozen(
        self, levels: ValueRange, routes: np.ndarray, given: Sequence[Mapping[str, float]]
    ) -> "Plan":
        """This plan with what the pre-pass found."""
        return replace(self, levels=levels, routes=routes, given=tuple(given), scout=None)


def plain_levels(levels: ValueRange) -> dict[str, Any]:
    """Levels as JSON values, which know no infinities and no NaN: those are written as text."""
    return {
        name: one if one is None or np.isfinite(one) else str(one)
        for name, one in asdict(levels).items()
    }


def read_levels(plain: Mapping[str, Any]) -> ValueRange:
    """The levels that plain_levels() wrote."""
    return ValueRange(**{name: None if one is None else float(one) for name, one in plain.items()})  # type: ignore[arg-type]


def pack(routes: np.ndarray) -> dict[str, Any]:
    """A small integer array as JSON: shape, and zlib-packed bytes in base64."""
    packed = base64.b64encode(zlib.compress(routes.astype(np.uint8).tobytes(), 9)).decode()
    return {"shape": list(routes.shape), "bytes": packed}


def unpack(packed: Mapping[str, Any]) -> np.ndarray:
    """The array that pack() packed, (rows, columns), int64."""
    flat = np.frombuffer(zlib.decompress(base64.b64decode(packed["bytes"])), np.uint8)
    return flat.reshape(packed["shape"]).astype(np.int64)


def policy_of(policy: str | None, given: Mapping[str, Any]) -> str:
    """The policy that is asked for by its name, if any, and by options that are not None. Refused:
    an option that would be ignored.
    """
    asked = [option for option in IMPLIED if given.get(option) is not None]
    name = policy or next((IMPLIED[option] for option in asked), "adaptive")
    for option in asked:
        if IMPLIED[option] != name:
            raise Refused(
                f"--{option} is for policy {IMPLIED[option]} and would be ignored by {name}; leave"
                " one of the two out"
            )
    return name


def differences(stored: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """What a stored plan and a new request disagree in, in words: `tile 128, now 64`."""
    found: list[str] = []
    for key in asked:
        old, new = stored.get(key), asked[key]
        if key in FOLLOWING and any(
            stored.get(other) != asked[other] for other in ("policy", "tiers")
        ):
            continue
        pairs: list[tuple[str, Any, Any]]
        if key == "policy":
            names = [
                name for name in new if (old or {}).get(name) != new[name] and name != "scout"
            ] or ["scout"]
            pairs = [
                ("policy" if name == "name" else name, (old or {}).get(name), new[name])
                for name in names
            ]
        elif key == "tiers":
            was, now = ([_tier_words(tier) for tier in tiers or ()] for tiers in (old, new))
            pairs = [(key, was, now)]
        elif key == "source":
            changed = [name for name in new if (old or {}).get(name) != new[name]]
            before, after = (
                {name: (one or {}).get(name) for name in changed} for one in (old, new)
            )
            pairs = [(key, before, after)]
        else:
            pairs = [(key, old, new)]
        found.extend(
            f"{name} {_short(was)}, now {_short(now)}" for name, was, now in pairs if was != now
        )
    return found


def outdated(stored: Plan, asked: Plan) -> bool:
    """Whether a stored plan asks for the same of the same file as a new one, and only what the file
    holds is another.
    """

    def wishes(plan: Plan) -> dict[str, Any]:
        plain = plan.asked()
        source = {key: value for key, value in plain["source"].items() if key != "identity"}
        return {
            key: plain[key] for key in plain if key not in ("shape", "dtype", "colour", "alpha")
        } | {"source": source}

    return stored.source["uri"] == asked.source["uri"] and wishes(stored) == wishes(asked)


def _tier_words(tier: Mapping[str, Any]) -> str:
    return f"{tier['name']}@{'auto' if tier.get('auto') else format(tier['effort'], 'g')}#{tier['weights'][:8]}"


def _short(value: Any) -> str:
    text = (
        json.dumps(value)
        if isinstance(value, dict | list)
        else "none"
        if value is None
        else str(value)
    )
    return text if len(text) <= 160 else text[:157] + "..."
