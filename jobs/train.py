"""Train a network: `tierscale train carn-x4 --hr DIR --seconds 3600`.

`python jobs/train.py …` is the same where only torch, numpy, safetensors, Pillow and click are
installed, and the command is the same on a CPU and a GPU.
"""

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

if __name__ == "__main__" and not __package__:
    # Run as a file, Python puts jobs/ on the path instead of the project.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from tierscale.jobs.cli.terminal import write
from tierscale.jobs.cli.train_options import EXAMPLES, OPTIONS, sentence

if TYPE_CHECKING:
    from tierscale.models.train.recipes import Stages
    from tierscale.models.train.setup import TrainOptions

# Options that change a field of the recipe's schedule.
SCHEDULE = ("steps", "seconds", "batch", "crop", "rate", "loss", "family", "seed", "bf16")


class TrainCommand(click.Command):
    """The command, whose mistakes in options end like all others: one sentence, exit code 2."""

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """Parse the options, and remember the line for the card."""
        words = tuple(args)
        try:
            context = super().make_context(info_name, args, parent, **extra)
        except click.UsageError as error:
            write(f"train: {sentence(error)}; see --help", error=True)
            raise click.exceptions.Exit(2) from error
        context.meta["tierscale.line"] = (*context.command_path.split(), *words)
        return context

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Networks and examples, whose lines are not wrapped."""
        from tierscale.models.train.recipes import known

        formatter.write(EXAMPLES.format(networks=known()))


class Stopping:
    """Remembers a SIGINT or SIGTERM; the step that is being done is finished first."""

    def __init__(self) -> None:
        self.number = 0
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = number

    def __call__(self) -> bool:
        return self.number != 0


def start(stages: "Stages | None" = None, **values: Any) -> int:
    """Train as the options say; the exit code.

    0 when trained, 1 when that diverged or saving failed, 2 when the options cannot work, 130, 143
    after SIGINT, SIGTERM. stages: of methods, by kind; None: ours.
    """
    from tierscale.models.train.recipes import STAGES
    from tierscale.models.train.run import run

    options, stopping = to_options(values), Stopping()
    try:
        ended = run(options, stopping, write, warn, STAGES if stages is None else stages)
    except (ValueError, FloatingPointError) as error:
        write(f"train: {error}", error=True)
        return 2 if isinstance(error, ValueError) else 1
    except OSError as error:
        write(f"train: cannot write to {options.out} ({error}){how_to_go_on(options)}", error=True)
        return 1
    if not ended:
        state = options.file(".pt")
        write(f"stopped; go on with --resume {state}", error=True)
        return 128 + stopping.number
    weights = options.file(".safetensors")
    write(f"{weights} is ready: use it as a tier file:{weights}")
    return 0


def to_options(values: dict[str, Any]) -> "TrainOptions":
    """The values of the command's options as the run takes them."""
    from tierscale.models.train.setup import TrainOptions

    context = click.get_current_context()
    schedule = {name: values.pop(name) for name in SCHEDULE}
    changed = {name: value for name, value in schedule.items() if value is not None}
    line: tuple[str, ...] = context.meta["tierscale.line"]
    return TrainOptions(**values, schedule=changed, command=line)


def warn(text: str) -> None:
    """Say something that does not end the run."""
    write(f"train: {text}", error=True)


def how_to_go_on(options: "TrainOptions") -> str:
    """The end of a sentence about a failed write, where there is a checkpoint."""
    state = options.file(".pt")
    if not os.path.isfile(state):
        return ""
    return f"; the last checkpoint is whole, go on with --resume {state}"


train = TrainCommand(
    "train",
    params=OPTIONS,
    callback=start,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Train a network on photos of your own, from scratch or from weights that there are.",
)


def main(line: Sequence[str] | None = None) -> int:
    """Run the command; its exit code, see start()."""
    arguments = None if line is None else list(line)
    code = train.main(arguments, prog_name="tierscale train", standalone_mode=False)
    return int(code or 0)


if __name__ == "__main__":
    sys.exit(main())
