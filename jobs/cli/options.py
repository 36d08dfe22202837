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

# Fields of Options whose option has the same name and holds their value, or text for it.
PLAIN = (
    *("scale", "tiers", "tile", "blend", "device", "value_range", "region"),
    *("series", "level", "z", "t", "nodata", "exact_statistics"),
)
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
        help="How many times larger: a number or a fraction such as 5/2 (default: 4).",
    ),
    click.option(
        "--tiers",
        help="Networks from light to full, separated by commas (default: by scale).",
    ),
]
POLICY: list[Command] = [
    click.option(
        "--policy",
        type=PolicyType(),
        help="How the tier of each tile is chosen (default: max-loss).",
    ),
    click.option(
        "--max-loss",
        type=float,
        help=(
            "Largest loss in dB against the full tier everywhere, by the upper end of what is"
            " predicted; implies --policy max-loss (default: 0.05)."
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
    click.option("--tile", type=int, help="Side of a tile in input pixels (default: 128)."),
    click.option(
        "--blend",
        type=int,
        help="Width of the transition between tiers in input pixels (default: 4).",
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
        help="Which pyramid level of the source to enlarge (default: 0).",
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
    """What the shared options ask for; what was not written has its default.

    Refused: a value that cannot be.
    """
    from tierscale.pipeline.plan.options import Options
    from tierscale.pipeline.plan.policies import policy_from
    from tierscale.pipeline.plan.tiers import parse_tiers

    # A flag that is off was not written: there is no way to write that.
    given = {
        name: value for name, value in cli_args.items() if value is not None and value is not False
    }
    options = {name: given[name] for name in PLAIN if name in given}
    for name, read in {"tiers": parse_tiers, "value_range": value_range, "region": region}.items():
        if name in options:
            options[name] = read(options[name])
    numbers = {name: given.get(name) for name in ("budget", "deadline", "threshold")}
    numbers["max_loss"] = given.get("max_loss", given.get("lose"))
    if given.keys() & {"policy", "lose", *numbers}:
        options["policy"] = policy_from(given.get("policy"), numbers)
    return Options(**options)


def value_range(text: str | None) -> tuple[float, float] | None:
    """The two numbers of --range. Refused: they are not two."""
    if text is None:
        return None
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        raise Refused(f"the range {text!r} is not two numbers separated by a comma") from None
    return low, high


def region(text: str | None) -> tuple[int, int, int, int] | None:
    """The four whole numbers of --region. Refused: they are not four."""
    if text is None:
        return None
    try:
        x, y, width, height = map(int, text.split(","))
    except ValueError:
        raise Refused(f"the region {text!r} is not four numbers separated by commas") from None
    return x, y, width, height
