"""The options of `tierscale train`: what they take, and their help."""

import json
import math
import os
from pathlib import Path
from typing import Any

import click

from tierscale.jobs.cli.options import Command, with_options
from tierscale.models.train.schedule import LOSS_NAMES, Schedule

EXAMPLES = """
networks: {networks}

examples:
  Fine-tune the zoo's weights on an archive of your own:
    tierscale train carn-x4 --hr scans/ --seconds 3600 --init carn-x4 --rate 2e-4
  From scratch:
    tierscale train fsrcnn-x4 --hr photos/ --steps 20000 --out runs/a
  Go on where that run stopped:
    tierscale train fsrcnn-x4 --hr photos/ --steps 20000 --out runs/a \\
      --resume runs/a/fsrcnn-x4.pt
The result, runs/a/fsrcnn-x4.safetensors, is a tier:
    tierscale upscale … --tiers bicubic,file:runs/a/fsrcnn-x4.safetensors
"""
# Beyond it, torch takes no seed.
SEEDS = 2**63
STANDARD = Schedule()
OWN = "default: the network's own"
FOLDER = click.Path(path_type=Path)


class Number(click.ParamType):
    """A finite number above 0 (`zero`: or 0)."""

    def __init__(self, kind: type[int] | type[float], zero: bool = False) -> None:
        self.kind, self.zero = kind, zero
        self.name = "integer" if kind is int else "float"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The number in an option's text; fails with a message that quotes the text."""
        try:
            number = self.kind(value)
        except ValueError:
            number = math.nan
        positive = number > 0 or (self.zero and number == 0)
        if not (math.isfinite(number) and positive and number < SEEDS):
            what = "a whole number" if self.kind is int else "a finite number"
            least = "of 0 or more" if self.zero else "above 0"
            self.fail(f"{value!r} is not {what} {least}", param, ctx)
        return number


class Mapping(click.ParamType):
    """A JSON object."""

    name = "json"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> dict[str, Any]:
        """The object in an option's text; fails with a message that quotes the text."""
        try:
            content = value if isinstance(value, dict) else json.loads(value)
        except ValueError:
            content = None
        if not isinstance(content, dict):
            self.fail(f'{value!r} is no JSON object such as {{"features": 32}}', param, ctx)
        return content


OPTIONS: list[Command] = [
    click.argument("name"),
    click.option(
        "--hr", type=FOLDER, required=True, metavar="DIR", help="Folder of photos, 8 bit."
    ),
    click.option(
        "--watch",
        type=FOLDER,
        metavar="DIR",
        help=(
            "Images whose PSNR is shown, each as a whole (default: every 23rd photo, or the lower"
            " part of a single one, is held back, and the central 64 input pixels of each are"
            " shown)."
        ),
    ),
    click.option(
        "--stage",
        help=(
            "Of an adaptive method's training, such as heaviest, lighter, choice (default: the"
            " method's first)."
        ),
    ),
    click.option("--steps", type=Number(int), help="End after so many steps (default: none)."),
    click.option(
        "--seconds",
        type=Number(float),
        help="End after so many seconds (default: none); this or --steps must be given.",
    ),
    click.option("--batch", type=Number(int), help=f"Crops in a step (default: {STANDARD.batch})."),
    click.option(
        "--crop",
        type=Number(int),
        help=f"Input pixels a side of a crop (default: {STANDARD.crop}).",
    ),
    click.option(
        "--rate",
        type=Number(float),
        help=f"Peak learning rate ({OWN}, 5e-4 to 2e-3; with --init a third to a fifth is better).",
    ),
    click.option(
        "--loss",
        type=click.Choice(LOSS_NAMES),
        help=f"Of plain networks (default: {STANDARD.loss}).",
    ),
    click.option(
        "--arguments",
        type=Mapping(),
        default={},
        metavar="JSON",
        help=f"Of the network, such as '{{\"features\": 32}}' ({OWN}).",
    ),
    click.option(
        "--seed",
        type=Number(int, zero=True),
        default=0,
        help="Of the first weights and the crops (default: 0).",
    ),
    click.option(
        "--bf16/--no-bf16",
        default=None,
        help=(
            "Compute in bfloat16: much faster where the processor has it (default: on a GPU, not"
            " on a CPU)."
        ),
    ),
    click.option(
        "--threads",
        type=Number(int),
        default=os.cpu_count() or 1,
        help="CPU threads (default: all there are).",
    ),
    click.option(
        "--device",
        type=click.Choice(("auto", "cpu", "cuda")),
        default="auto",
        help="Where to train (default: auto, a GPU where there is one).",
    ),
    click.option(
        "--init",
        multiple=True,
        metavar="[PART=]FILE",
        help=(
            "Start from what fits of a zoo name or a file; may be repeated (default: from scratch)."
        ),
    ),
    click.option(
        "--resume",
        type=FOLDER,
        metavar="CKPT",
        help="Go on from the .pt file of an earlier run, exactly (default: a new run).",
    ),
    click.option(
        "--out",
        type=FOLDER,
        default=Path(".work/train"),
        metavar="DIR",
        help="Where all files of the run go (default: .work/train).",
    ),
    click.option(
        "--overwrite",
        is_flag=True,
        help="Replace what an earlier run left in --out (default: refused).",
    ),
    click.option(
        "--every",
        type=Number(float),
        default=60,
        metavar="SECONDS",
        help="Between progress lines and checkpoints (default: 60).",
    ),
]


def training(command: Command) -> Command:
    """Give a command the options of all that train."""
    return with_options(OPTIONS, command)
