"""The options that enlarging commands share, from text to pipeline.plan.Options."""

import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import click

from tierscale.pipeline.errors import Refused
from tierscale.pipeline.plan.options import Options, parse_scale
from tierscale.pipeline.plan.policies import KINDS, OLD_NAMES, policy_from
from tierscale.pipeline.plan.tiers import parse_tiers

UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


class ScaleType(click.ParamType):
    name = "number or fraction"

    def convert(self, value: Any, param: Any, ctx: Any) -> Fraction:
        return value if isinstance(value, Fraction) else parse_scale(value)


class BytesType(click.ParamType):
    name = "bytes"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", str(value).strip().lower())
        if not match:
            raise Refused(f"{value!r} is no number of bytes; write 8000000000, 8G or 500M")
        return int(float(match[1]) * UNITS[match[2]])


class TimeType(click.ParamType):
    name = "time"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        if isinstance(value, float):
            return value
        match = re.fullmatch(
            r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?",
            str(value).strip().lower(),
        )
        if not match or not any(match.groups()):
            raise Refused(f"{value!r} is no time; write 6h, 90m, 1h30m or 45s")
        return sum(
            float(part or 0) * seconds
            for part, seconds in zip(match.groups(), (3600, 60, 1), strict=True)
        )


def _numbers(text: str | None, count: int, what: str, kind: type) -> tuple[Any, ...] | None:
    if text is None:
        return None
    try:
        found = tuple(kind(part) for part in text.split(","))
    except ValueError:
        found = ()
    if len(found) != count:
        raise Refused(f"{what} {text!r} is not {count} numbers with commas between them")
    return found


class PolicyType(click.Choice):
    """A policy by its name, or by the one that version 0.1 gave it."""

    def __init__(self) -> None:
        super().__init__(list(KINDS))

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        return super().convert(OLD_NAMES.get(value, value), param, ctx)


SHARED: list[Callable[[Any], Any]] = [
    click.option(
        "--scale",
        type=ScaleType(),
        default=Fraction(4),
        show_default="4",
        help="How many times larger: a number or a fraction such as 5/2.",
    ),
    click.option("--tiers", help="Networks from cheap to dear, with commas between them."),
    click.option(
        "--policy",
        type=PolicyType(),
        help="How tiles are given their tiers (default adaptive).",
    ),
    click.option(
        "--budget",
        type=float,
        help=(
            "Share of the cost of the dearest tier everywhere that may be spent; implies --policy"
            " budget."
        ),
    ),
    click.option(
        "--threshold",
        type=float,
        help="Difficulty (squared error, values 0..1) above which a dearer tier is taken.",
    ),
    click.option(
        "--max-loss",
        "--lose",
        "max_loss",
        type=float,
        help=(
            "dB below the dearest tier everywhere that may be lost by prediction; implies --policy"
            " quality."
        ),
    ),
    click.option(
        "--deadline",
        type=TimeType(),
        help="How long it may take, such as 6h, 90m or 1h30m; implies --policy deadline.",
    ),
    click.option(
        "--scout",
        help=(
            "File of a scout that was fitted for these tiers (default: the one that is known for"
            " them)."
        ),
    ),
    click.option(
        "--tile", type=int, default=128, show_default=True, help="Side of a tile in input pixels."
    ),
    click.option(
        "--blend",
        type=int,
        default=4,
        show_default=True,
        help="Width of the fade between tiers in input pixels.",
    ),
    click.option(
        "--layout",
        type=click.Choice(["auto", "split", "together"]),
        default="auto",
        show_default=True,
        help="One pool of workers, or the dearest tier apart.",
    ),
    click.option(
        "--ray",
        "ray_address",
        default="local",
        show_default=True,
        help="local: a Ray of its own; none: threads; or a cluster's ADDRESS.",
    ),
    click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda"]),
        default="auto",
        show_default=True,
    ),
    click.option(
        "--workers",
        type=click.IntRange(min=1),
        help="Worker processes (default: one for each core or GPU).",
    ),
    click.option(
        "--max-memory",
        type=BytesType(),
        help="Bytes that all processes together may take, such as 8G.",
    ),
    click.option(
        "--range",
        "value_range",
        help=(
            "LO,HI: values that become black and white (default: by type for 8 bits, else as"
            " measured)."
        ),
    ),
    click.option("--region", help="X,Y,W,H: a trial crop of the input."),
    click.option("--series", type=int, help="Image of a file that holds several."),
    click.option("--level", type=int, default=0, help="Pyramid level of the source to enlarge."),
    click.option("--z", type=int, help="Plane of a stack."),
    click.option("--t", type=int, help="Time point."),
    click.option("--nodata", type=float, help="Value that stands for missing pixels."),
    click.option(
        "--exact-statistics",
        is_flag=True,
        help="Tiers NAME@auto look at all of the image, at full price, not at a sample.",
    ),
]


def shared(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the shared options."""
    for option in reversed(SHARED):
        command = option(command)
    return command


ANSWERING = [
    click.option("--json", "as_json", is_flag=True, help="Print one JSON object."),
    click.option("--debug", is_flag=True, help="Show a traceback when something fails."),
]


def answering(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that all have which answer and may fail."""
    for option in reversed(ANSWERING):
        command = option(command)
    return command


def to_options(given: dict[str, Any]) -> Options:
    """What the shared options ask for. Refused: a value that cannot be."""
    tiers = given["tiers"]
    return Options(
        scale=given["scale"],
        tiers=None if tiers is None else parse_tiers(tiers),
        policy=policy_from(
            given["policy"],
            {name: given[name] for name in ("budget", "max_loss", "deadline", "threshold")},
        ),
        tile=given["tile"],
        blend=given["blend"],
        device=given["device"],
        value_range=_numbers(given["value_range"], 2, "the range", float),  # type: ignore[arg-type]
        region=_numbers(given["region"], 4, "the region", int),  # type: ignore[arg-type]
        series=given["series"],
        level=given["level"],
        z=given["z"],
        t=given["t"],
        nodata=given["nodata"],
        exact_statistics=bool(given.get("exact_statistics")),
        scout=given.get("scout"),
    )
