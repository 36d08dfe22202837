"""The options that enlarging commands share, and what they mean as pipeline Options.

Importing this module loads no library but click, so that --help is quick.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tierscale.jobs.cli.types import BytesType, NumberType, PolicyType, ScaleType, TimeType
from tierscale.pipeline.errors import Refused

if TYPE_CHECKING:
    from tierscale.pipeline.plan.options import Options

# Fields of Options whose option has the same name and holds their value, or text for it.
PLAIN = (
    *("scale", "tiers", "family", "precision", "tile", "blend", "device", "value_range"),
    *("region",),
    *("series", "level", "z", "t", "nodata", "denoise", "exact_statistics"),
)
Command = Callable[..., Any]


SCALE: Command = click.option(
    "--scale",
    type=ScaleType(),
    default="4",
    show_default=True,
    help="How many times larger: a number or a fraction such as 5/2.",
)
NETWORKS: list[Command] = [
    click.option(
        "--scale",
        type=ScaleType(),
        help="How many times larger: a number or a fraction such as 5/2 (default: 4).",
    ),
    click.option(
        "--tiers",
        metavar="A,B,C",
        help="Networks from light to full, separated by commas (default: by scale).",
    ),
    click.option(
        "--family",
        type=click.Choice(["auto", "clean", "photo"]),
        help=(
            "Networks for pictures as they are (clean), or for photos and scans with blur, grain"
            " or JPEG blocks (photo, at scale 4); auto, the default, looks at each image of 8 bits"
            " and takes what is expected to err less. Without effect beside --tiers."
        ),
    ),
    click.option(
        "--denoise",
        type=float,
        metavar="SHARE",
        help=(
            "How much photo networks take away: 1 (default) all grain and blocks, 0 nothing, as"
            " clean networks do."
        ),
    ),
    click.option(
        "--precision",
        type=click.Choice(["auto", "fp32", "bf16"]),
        help=(
            "Numbers that networks compute with: float32, or bfloat16, which is about twice as fast"
            " where the processor has it; auto, the default, takes it where all workers have it."
        ),
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
        metavar="DB",
        help=(
            "Largest loss in dB against the full tier everywhere, by the upper end of what is"
            " predicted; implies --policy max-loss (default: 0.05)."
        ),
    ),
    click.option("--lose", type=float, hidden=True),
    click.option(
        "--budget",
        type=float,
        metavar="SHARE",
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
        metavar="X",
        help=(
            "Largest predicted squared error, of values 0 to 1, above that of the full tier;"
            " implies --policy threshold."
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
        help="together: one pool of workers; split: workers of its own for the full tier.",
    ),
    click.option(
        "--ray",
        "ray_address",
        default="local",
        show_default=True,
        metavar="local|none|ADDRESS",
        help="local: start Ray here; none: threads without Ray; ADDRESS: of a Ray cluster.",
    ),
    click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda"]),
        default="auto",
        show_default=True,
        help="Where networks run; auto: on GPUs if there are any.",
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
    click.option(
        "--region", metavar="X,Y,W,H", help="Enlarge only this part of the input, in pixels."
    ),
    click.option(
        "--series",
        type=int,
        help="Number of the image in a file that holds several (default: the first).",
    ),
    click.option(
        "--level",
        type=int,
        help="Pyramid level of the source to enlarge; 0 is the largest (default: 0).",
    ),
    click.option("--z", type=int, help="Plane of a stack (default: the first)."),
    click.option("--t", type=int, help="Time point (default: the first)."),
    click.option("--nodata", type=float, metavar="X", help="Value that marks missing pixels."),
    click.option(
        "--exact-statistics",
        is_flag=True,
        help="Tiers NAME@auto measure the whole image, at full cost, instead of a sample.",
    ),
]
PHOTOS: list[Command] = [
    click.option(
        "--hr",
        "folder",
        required=True,
        type=click.Path(path_type=Path, file_okay=False, exists=True),
        metavar="DIR",
        help="Folder of photos with 8 bits a channel.",
    ),
    click.option(
        "--seed",
        type=NumberType(int, zero=True),
        default=0,
        show_default=True,
        help="Seed of all that is drawn at random.",
    ),
]
ANSWERING: list[Command] = [
    click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object."),
    click.option("--debug", is_flag=True, help="Show a traceback on failure."),
]


def with_options(options: list[Command], command: Command) -> Command:
    """Give a command options, which --help shows in this order."""
    for option in reversed(options):
        command = option(command)
    return command


def shared(command: Command) -> Command:
    """Give a command the options of all enlarging commands."""
    return with_options([*NETWORKS, *POLICY, *RUNNING, *PART], command)


def choosing(command: Command) -> Command:
    """Give a command the options that choose networks and a policy."""
    return with_options([*NETWORKS, *POLICY], command)


def on_photos(command: Command) -> Command:
    """Give a command the options of all that measure on photos of a person's own."""
    return with_options(PHOTOS, command)


def answering(command: Command) -> Command:
    """Give a command the options of all that print a result."""
    return with_options(ANSWERING, command)


def to_options(cli_args: Mapping[str, Any]) -> "Options":
    """What the shared options ask for; what was not written has its default.

    Refused: a value that cannot be.
    """
    from tierscale.pipeline.plan.options import Options
    from tierscale.pipeline.plan.policies import policy_from
    from tierscale.pipeline.plan.tiers import parse_tiers

    # A flag that is off was not written: there is no way to write it.
    written = {
        name: value for name, value in cli_args.items() if value is not None and value is not False
    }
    options = {name: written[name] for name in PLAIN if name in written}
    for name, read in {"tiers": parse_tiers, "value_range": value_range, "region": region}.items():
        if name in options:
            options[name] = read(options[name])
    numbers = {name: written.get(name) for name in ("budget", "deadline", "threshold")}
    numbers["max_loss"] = written.get("max_loss", written.get("lose"))
    if written.keys() & {"policy", "lose", *numbers}:
        options["policy"] = policy_from(written.get("policy"), numbers)
    return Options(**options)


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
        raise Refused(
            f"the region {text!r} is not four whole numbers separated by commas; write X,Y,W,H"
        ) from None
    return x, y, width, height
