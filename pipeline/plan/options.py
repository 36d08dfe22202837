"""What a person asks for, as far as the result depends on it."""

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from fractions import Fraction
from functools import wraps
from typing import TYPE_CHECKING, Literal, TypeVar

from tierscale.pipeline.errors import Refused
from tierscale.pipeline.plan.policies import DEFAULT, KINDS, Policy, policy_from
from tierscale.pipeline.plan.tiers import PHOTO_TIERS, default_tiers, denoised, parse_tiers

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

LARGEST_SCALE = 64
# Tiles are multiples of the scale's denominator.
LARGEST_DENOMINATOR = 128
SMALLEST_TILE, LARGEST_TILE = 8, 4096

# What may be written for the family of networks.
FAMILIES = ("auto", "clean", "photo")

T = TypeVar("T", bound="DataclassInstance")

# x, y, width, height of a part of the input.
Region = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Selection:
    """Which image of a file that holds several; what is None is taken as the first.

    series: number of the image, page or frame. level: pyramid level, 0 is the largest.
    z, t: plane of a stack, time point.
    """

    series: int | None = None
    level: int = 0
    z: int | None = None
    t: int | None = None


def _note_written(cls: type[T]) -> type[T]:
    """A dataclass that takes down, as `written`, which of its fields somebody wrote; None is not.

    Of what was left out the class's own __init__() sees the default alone.
    """
    init, order = vars(cls)["__init__"], [one.name for one in fields(cls) if one.init]

    @wraps(init)
    def noting(self: T, *values: object, **named: object) -> None:
        given = {**dict(zip(order, values, strict=False)), **named}
        names = frozenset(name for name, value in given.items() if value is not None)
        object.__setattr__(self, "written", names)
        init(self, *values, **named)

    setattr(cls, init.__name__, noting)
    return cls


@_note_written
@dataclass(frozen=True, slots=True)
class Options:
    """How an image is enlarged; valid once constructed, else Refused.

    scale: 1 to 64, exact; a number, or a fraction as text such as "5/2". tiers: labels from light
    to full; None: the defaults of the scale. policy: how the tier of each tile is chosen; one of
    the policies, or the name of one without a number. tile, blend: input pixels. device: "auto",
    "cpu" or "cuda". value_range: the values that become 0 and 1; None: by the data type, or
    measured. region: x, y, width, height of a part of the input. series, level, z, t: which image
    of a file that holds several, which pyramid level (0 is the largest), which plane, which time
    point; None: the first. nodata: value that marks missing pixels, beside what the file says.
    family: of networks among the default tiers: "clean", "photo" (for scans and photos with blur,
    grain and compression), or "auto", as the image needs; without effect where tiers are named.
    denoise: strength of photo networks, 0 to 1; below 1 they are mixed with their clean twins.
    exact_statistics: tiers NAME@auto measure the whole image, at full cost, instead of a sample.

    written: names of the options that somebody wrote. The others are this version's defaults; an
    output that was begun with other ones goes on with those.
    """

    scale: Fraction = Fraction(4)
    tiers: tuple[str, ...] | None = None
    policy: Policy = DEFAULT
    tile: int = 128
    blend: int = 4
    device: str = "auto"
    value_range: tuple[float, float] | None = None
    region: Region | None = None
    series: int | None = None
    level: int = 0
    z: int | None = None
    t: int | None = None
    nodata: float | None = None
    family: Literal["auto", "clean", "photo"] = "auto"
    denoise: float = 1.0
    exact_statistics: bool = False
    written: frozenset[str] = field(init=False, repr=False, compare=False)

    def altered(self, **changes: object) -> "Options":
        """These options with some that are written now. Refused: a value that cannot be."""
        return self._with(changes, self.written | changes.keys())

    def completed(self, **values: object) -> "Options":
        """These options with values for those that nobody wrote. Refused: one that cannot be."""
        missing = {name: value for name, value in values.items() if name not in self.written}
        return self._with(missing, self.written)

    def _with(self, changes: Mapping[str, object], written: frozenset[str]) -> "Options":
        values = {one.name: getattr(self, one.name) for one in fields(self) if one.init}
        values.update(changes)
        options = Options(**values)
        object.__setattr__(options, "written", written)
        return options

    def __post_init__(self) -> None:
        self._convert()
        if not Fraction(1) <= self.scale <= LARGEST_SCALE:
            raise Refused(
                f"scale {self.scale} is not between 1 and {LARGEST_SCALE}; give --scale 2, 3, 4 or"
                " a fraction such as 5/2"
            )
        if self.scale.denominator > LARGEST_DENOMINATOR:
            raise Refused(
                f"scale {self.scale} would need tiles of {self.scale.denominator} pixels; write"
                f" {float(self.scale):.1f}"
            )
        if not SMALLEST_TILE <= self.tile <= LARGEST_TILE:
            raise Refused(
                f"a tile of {self.tile} pixels is not between {SMALLEST_TILE} and {LARGEST_TILE};"
                " leave --tile out, or give 128"
            )
        if not 0 <= self.blend <= self.tile // 2:
            raise Refused(
                f"a blend of {self.blend} pixels is not between 0 and half the tile"
                f" ({self.tile // 2}); leave --blend out, or give 4"
            )
        _check_range(self.value_range)
        self._check_family()
        self._check_denoise()

    def _check_family(self) -> None:
        """Refuse a family that there is not, or not for this scale."""
        if self.family not in FAMILIES:
            raise Refused(f"there is no family {self.family!r}; give one of {', '.join(FAMILIES)}")
        if self.family == "photo" and self.tiers is None and self.scale not in PHOTO_TIERS:
            scales = ", ".join(f"x{scale}" for scale in PHOTO_TIERS)
            raise Refused(
                f"there are no photo networks for scale {self.scale}, only for {scales}; leave"
                " --family out, or choose another scale"
            )

    def _check_denoise(self) -> None:
        """Refuse a strength that there is not, or of photo networks that are not asked for."""
        if not 0 <= self.denoise <= 1:
            raise Refused(
                f"a strength of {self.denoise:g} is not between 0 and 1; give --denoise 0.5, or"
                " leave it out"
            )
        if self.denoise == 1 or (self.tiers is None and self.family != "clean"):
            return
        labels = self.tiers or self.tier_labels
        if denoised(labels, 0) == labels:
            raise Refused(
                f"--denoise {self.denoise:g} is the strength of photo networks, and"
                f" {', '.join(labels)} are none; give --family photo, or leave it out"
            )

    def _convert(self) -> None:
        """Take scale, tiers and policy as people write them; Refused: they are something else."""
        object.__setattr__(self, "scale", parse_scale(self.scale))
        if self.tiers is not None:
            labels = parse_tiers(self.tiers) if isinstance(self.tiers, str) else tuple(self.tiers)
            object.__setattr__(self, "tiers", labels)
        if isinstance(self.policy, str):
            object.__setattr__(self, "policy", policy_from(self.policy, {}))
        if not isinstance(self.policy, tuple(KINDS.values())):
            raise Refused(
                f"{self.policy!r} is not a policy; give one such as tierscale.Budget(0.3)"
            )
        for name in ("tile", "blend", "level"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise Refused(f"a {name} of {value!r} is not a whole number; give one such as 128")

    @property
    def tier_labels(self) -> tuple[str, ...]:
        """The tiers asked for, or the defaults of scale and family; of auto, the clean ones."""
        if self.tiers is not None:
            return denoised(self.tiers, self.denoise)
        return self.tier_labels_of("clean" if self.family == "auto" else self.family)

    def tier_labels_of(self, family: str) -> tuple[str, ...]:
        """The default tiers of a family: "clean", "photo", or "none"."""
        return denoised(default_tiers(self.scale, family), self.denoise)

    @property
    def selection(self) -> Selection:
        """Which image of the file."""
        return Selection(self.series, self.level, self.z, self.t)


def _check_range(value_range: tuple[float, float] | None) -> None:
    if value_range is not None and not -math.inf < value_range[0] < value_range[1] < math.inf:
        raise Refused(
            f"a range from {value_range[0]:g} to {value_range[1]:g} does not rise; give --range"
            " LO,HI"
        )


def parse_scale(text: str | float | Fraction) -> Fraction:
    """A scale such as 4, 2.7 or 5/2, exact.

    A float with many digits stands for the fraction that it comes from, such as 7 / 3.
    """
    plain = str(text).strip()
    if isinstance(text, float) and math.isfinite(text):
        near = Fraction(text).limit_denominator(LARGEST_DENOMINATOR)
        if near > 0 and abs(float(near) - text) < 1e-9:
            return near
    # An exponent is no way to write a scale, and the exact value of 1e999999999 would take all
    # memory.
    if "e" not in plain.lower():
        with contextlib.suppress(ValueError, ZeroDivisionError):
            return Fraction(plain)
    raise Refused(f"a scale {text!r} is neither a number nor a fraction; write 4, 2.7 or 5/2")


def parse_range(text: str) -> tuple[float, float]:
    """The two values of a range such as 0,4095. Refused: they are not two numbers."""
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        raise Refused(
            f"the range {text!r} is not two numbers separated by a comma; write 0,4095"
        ) from None
    return low, high
