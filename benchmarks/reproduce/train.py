"""Train a method as its paper does: `python -m benchmarks.reproduce.train adaedsr-x4 --hr DIR …`.

The options are those of `tierscale train`; the stage is the paper's, see stages.py. What came of it
beside our own ways is in docs/training.md.
"""

import sys
from typing import Any

import click

from benchmarks.reproduce.stages import PAPER_STAGES
from tierscale.jobs.cli.exits import run_command
from tierscale.jobs.cli.options import answering
from tierscale.jobs.cli.train_options import training
from tierscale.jobs.train import TrainCommand, run_training


@click.command("train", cls=TrainCommand)
@training
@answering
def command(**cli_args: Any) -> None:
    """Train APE, AdaDSR, AnySR or ClassSR by the losses of its paper."""
    run_training(cli_args, PAPER_STAGES)


if __name__ == "__main__":
    run_command(command, sys.argv[1:], "python -m benchmarks.reproduce.train")
