"""The options of `tierscale train`: what they take, and their help."""

import os
from pathlib import Path

import click

from tierscale.jobs.cli.options import Command, with_options
from tierscale.jobs.cli.types import JsonType, NumberType
from tierscale.models.train.schedule import FAMILIES, LOSS_NAMES, Schedule

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
STANDARD = Schedule()
OWN = "default: the network's own"
FOLDER = click.Path(path_type=Path)


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
            "Stage of an adaptive method's training, such as heaviest, lighter or choice (default:"
            " the method's first)."
        ),
    ),
    click.option(
        "--steps",
        type=NumberType(int),
        help="End after so many steps; this or --seconds must be given.",
    ),
    click.option(
        "--seconds",
        type=NumberType(float),
        help="End after so many seconds; this or --steps must be given.",
    ),
    click.option(
        "--batch", type=NumberType(int), help=f"Crops in a step (default: {STANDARD.batch})."
    ),
    click.option(
        "--crop",
        type=NumberType(int),
        help=f"Input pixels a side of a crop (default: {STANDARD.crop}).",
    ),
    click.option(
        "--rate",
        type=NumberType(float),
        help=f"Peak learning rate ({OWN}, 5e-4 to 2e-3; with --init, take a third to a fifth).",
    ),
    click.option(
        "--loss",
        type=click.Choice(LOSS_NAMES),
        help=f"Loss that a plain network is trained by (default: {STANDARD.loss}).",
    ),
    click.option(
        "--family",
        type=click.Choice(FAMILIES),
        help=(
            "What the network is for: pictures as they are, or scans and photos with blur, grain"
            f" and compression (default: {STANDARD.family})."
        ),
    ),
    click.option(
        "--arguments",
        type=JsonType(),
        default={},
        metavar="JSON",
        help=f"Arguments of the network, such as '{{\"features\": 32}}' ({OWN}).",
    ),
    click.option(
        "--seed",
        type=NumberType(int, zero=True),
        default=0,
        help="Seed of the first weights and the crops (default: 0).",
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
        type=NumberType(int),
        default=os.cpu_count() or 1,
        help="CPU threads (default: all).",
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
            "Start from the weights of a zoo name or a file, as far as they fit; may be repeated"
            " (default: from scratch)."
        ),
    ),
    click.option(
        "--resume",
        type=FOLDER,
        metavar="FILE",
        help="Resume from the .pt file of an earlier run, exactly (default: begin a new run).",
    ),
    click.option(
        "--out",
        type=FOLDER,
        default=Path("runs"),
        metavar="DIR",
        help="Folder for all files of the run; it is made if need be (default: runs).",
    ),
    click.option(
        "--overwrite",
        is_flag=True,
        help="Replace what an earlier run left in --out (default: refuse to).",
    ),
    click.option(
        "--every",
        type=NumberType(float),
        default=60,
        metavar="SECONDS",
        help="Time between progress lines and checkpoints (default: 60).",
    ),
]


def training(command: Command) -> Command:
    """Give a command the options of all that train."""
    return with_options(OPTIONS, command)
