"""The options that enlarging commands share, and what they mean as pipeline Options.

Importing this module loads no library but click, so that --help is quick.
"""

import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import click

from tierscale.pipeline.errors import Refused
from tierscale.pipeline.plan.policies import KINDS, OLD_NAMES

if TYPE_CHECKING:
    from tierscale.pipeline.plan.options import Options

UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}

Command = Callable[..., Any]
Param = click.Parameter | None
Context = click.Context | None


class PolicyType(click.Choice[str]):
    """A policy by its name; names of version 0.1 are accepted, and shown nowhere."""

    def __init__(self) -> None:
        super().__init__(tuple(KINDS))

    def convert(self, value: Any, param: Param, ctx: Context) -> str:
        """The policy's name."""
        return super().convert(OLD_NAMES.get(value, value), param, ctx)


class ScaleType(click.ParamType[Fraction]):
    """A scale: "4", "2.5" or "5/2"."""

    name = "number or fraction"

    def convert(self, value: Any, param: Param, ctx: Context) -> Fraction:
        """The scale. Refused: it is no number."""
        from tierscale.pipeline.plan.options import parse_scale

        return value if isinstance(value, Fraction) else parse_scale(value)


class BytesType(click.ParamType[int]):
    """A number of bytes: "8000000000", "8G" or "500M", in powers of 1024."""

    name = "bytes"

    def convert(self, value: Any, param: Param, ctx: Context) -> int:
        """The number. Refused: it is none."""
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", str(value).strip().lower())
        if not match:
            raise Refused(f"{value!r} is no number of bytes; write 8000000000, 8G or 500M")
        return int(float(match[1]) * UNITS[match[2]])


class TimeType(click.ParamType[float]):
    """A length of time: "6h", "90m", "1h30m" or "45s"."""

    name = "time"

    def convert(self, value: Any, param: Param, ctx: Context) -> float:
        """Seconds. Refused: it is no time."""
        if isinstance(value, float):
            return value
        match = re.fullmatch(
            r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?",
            str(value).strip().lower(),
        )
        if not match or not any(match.groups()):
            raise Refused(f"{value!r} is no length of time; write 6h, 90m, 1h30m or 45s")
        return sum(
            float(part or 0) * seconds
            for part, seconds in zip(match.groups(), (3600, 60, 1), strict=True)
        )


NETWORKS: list[Command] = [
    click.option(
        "--scale",
        type=ScaleType(),
        default="4",
        show_default=True,
        help="How many times larger: a number or a fraction such as 5/2.",
    ),
    click.option(
        "--tiers",
        help="Networks from light to full, separated by commas (default: by scale).",
    ),
    click.option(
        "--scout",
        help=("File of a scout that was fitted for these tiers (default: the known one)."),
    ),
]
POLICY: list[Command] = [
    click.option(
        "--policy",
        type=PolicyType(),
        help="How the tier of each tile is chosen (default: adaptive).",
    ),
    click.option(
        "--max-loss",
        type=float,
        help=(
            "Largest predicted loss in dB against the full tier everywhere; implies --policy"
            " max-loss."
        ),
    ),
    click.option("--lose", type=float, hidden=True),
    click.option(
        "--budget",
        type=float,
        help=(
            "Largest cost, as a share (0 to 1) of the full tier everywhere; implies --policy"
            " budget."
        ),
    ),
    click.option(
        "--deadline",
        type=TimeType(),
        help="Longest time, such as 6h, 90m or 1h30m; implies --policy deadline.",
    ),
    click.option(
        "--threshold",
        type=float,
        help=(
            "Difficulty (squared error, values 0 to 1) above which a larger tier is used; implies"
            " --policy threshold."
        ),
    ),
]
RUNNING: list[Command] = [
    click.option(
        "--tile", type=int, default=128, show_default=True, help="Side of a tile in input pixels."
    ),
    click.option(
        "--blend",
        type=int,
        default=4,
        show_default=True,
        help="Width of the transition between tiers in input pixels.",
    ),
    click.option(
        "--layout",
        type=click.Choice(["auto", "split", "together"]),
        default="auto",
        show_default=True,
        help="together: one pool of workers; split: the full tier has workers of its own.",
    ),
    click.option(
        "--ray",
        "ray_address",
        default="local",
        show_default=True,
        help="local: start Ray here; none: threads without Ray; or the ADDRESS of a cluster.",
    ),
    click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda"]),
        default="auto",
        show_default=True,
        help="Where networks run; auto: on GPUs where there are any.",
    ),
    click.option(
        "--workers",
        type=click.IntRange(min=1),
        help="Worker processes (default: one for each core or GPU).",
    ),
    click.option(
        "--max-memory",
        type=BytesType(),
        help="Bytes that all processes together may use, such as 8G (default: 90% of the machine).",
    ),
]
PART: list[Command] = [
    click.option(
        "--range",
        "value_range",
        metavar="LO,HI",
        help=(
            "Values that become black and white (default: 0,255 for 8 bits, otherwise measured)."
        ),
    ),
    click.option("--region", metavar="X,Y,W,H", help="Enlarge only this crop of the input."),
    click.option("--series", type=int, help="Which image of a file that holds several."),
    click.option(
        "--level",
        type=int,
        default=0,
        show_default=True,
        help="Which pyramid level of the source to enlarge.",
    ),
    click.option("--z", type=int, help="Which plane of a stack."),
    click.option("--t", type=int, help="Which time point."),
    click.option("--nodata", type=float, help="Value that marks missing pixels."),
    click.option(
        "--exact-statistics",
        is_flag=True,
        help="Tiers NAME@auto measure the whole image, at full cost, instead of a sample.",
    ),
]
ANSWERING: list[Command] = [
    click.option("--json", "as_json", is_flag=True, help="Print one JSON object."),
    click.option("--debug", is_flag=True, help="Show a traceback when something fails."),
]


def _with(options: list[Command], command: Command) -> Command:
    for option in reversed(options):
        command = option(command)
    return command


def shared(command: Command) -> Command:
    """Give a command the options of all enlarging commands."""
    return _with([*NETWORKS, *POLICY, *RUNNING, *PART], command)


def choosing(command: Command) -> Command:
    """Give a command the options that choose networks and a policy."""
    return _with([*NETWORKS, *POLICY], command)


def answering(command: Command) -> Command:
    """Give a command the options of all that print a result."""
    return _with(ANSWERING, command)


def to_options(cli_args: Mapping[str, Any]) -> "Options":
    """What the shared options ask for; options that a command lacks have their defaults.

    Refused: a value that cannot be.
    """
    from tierscale.pipeline.plan.options import Options
    from tierscale.pipeline.plan.policies import policy_from
    from tierscale.pipeline.plan.tiers import parse_tiers

    def get(name: str, default: Any = None) -> Any:
        value = cli_args.get(name)
        return default if value is None else value

    numbers = {name: get(name) for name in ("budget", "deadline", "threshold")}
    numbers["max_loss"] = get("max_loss", get("lose"))
    part = {name: get(name) for name in ("series", "z", "t", "nodata")}
    tiers = get("tiers")
    return Options(
        scale=get("scale", Fraction(4)),
        tiers=None if tiers is None else parse_tiers(tiers),
        policy=policy_from(get("policy"), numbers),
        tile=get("tile", 128),
        blend=get("blend", 4),
        device=get("device", "auto"),
        value_range=value_range(get("value_range")),
        region=region(get("region")),
        level=get("level", 0),
        exact_statistics=get("exact_statistics", False),
        scout=get("scout"),
        **part,
    )


def value_range(text: str | None) -> tuple[float, float] | None:
    """The two numbers of --range. Refused: they are not two."""
    from tierscale.pipeline.plan.options import parse_range

    return None if text is None else parse_range(text)


def region(text: str | None) -> tuple[int, int, int, int] | None:
    """The four whole numbers of --region. Refused: they are not four."""
    if text is None:
        return None
    try:
        x, y, width, height = map(int, text.split(","))
    except ValueError:
        raise Refused(f"the region {text!r} is not four numbers separated by commas") from None
    return x, y, width, height
