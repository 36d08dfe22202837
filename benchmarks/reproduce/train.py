"""Train a method as its paper does: `python -m benchmarks.reproduce.train adaedsr-x4 --hr DIR …`.

The options are those of `tierscale train`; the stage is the paper's, see stages.py. What came of it
beside our own ways is in docs/training.md.
"""

import sys
from functools import partial

from benchmarks.reproduce.stages import PAPER_STAGES
from tierscale.jobs.cli.train_options import OPTIONS
from tierscale.jobs.train import TrainCommand, start

command = TrainCommand(
    "train",
    params=OPTIONS,
    callback=partial(start, stages=PAPER_STAGES),
    help="Train APE, AdaDSR, AnySR or ClassSR by the losses of its paper.",
)

if __name__ == "__main__":
    sys.exit(command.main(prog_name="python -m benchmarks.reproduce.train", standalone_mode=False))
