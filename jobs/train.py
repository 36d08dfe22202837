"""Train a network: `tierscale train carn-x4 --hr DIR --seconds 3600`.

`python jobs/train.py …` is the same where only torch, numpy, safetensors, Pillow and click are
installed, and the command is the same on a CPU and a GPU.
"""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if __name__ == "__main__" and not __package__:
    # Run as a file, Python puts jobs/ on the path instead of the project.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from tierscale.jobs.cli.exits import Draining, run_command
from tierscale.jobs.cli.options import answering
from tierscale.jobs.cli.terminal import emit, say, write
from tierscale.jobs.cli.train_options import EXAMPLES, training
from tierscale.pipeline.errors import Damaged, Refused
from tierscale.pipeline.storage.path_policy import check_lasting

if TYPE_CHECKING:
    from tierscale.models.train.recipes import Stages
    from tierscale.models.train.setup import TrainOptions

# Options that change a field of the recipe's schedule.
SCHEDULE = ("steps", "seconds", "batch", "crop", "rate", "loss", "family", "seed", "bf16")


class TrainCommand(click.Command):
    """The command, which remembers its line for the card, and shows networks and examples."""

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """Parse the options, and remember the line."""
        words = tuple(args)
        context = super().make_context(info_name, args, parent, **extra)
        context.meta["tierscale.line"] = (*context.command_path.split(), *words)
        return context

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Networks and examples, whose lines are not wrapped."""
        from tierscale.models.train.recipes import known

        formatter.write(EXAMPLES.format(networks=known()))


def run_training(cli_args: dict[str, Any], stages: "Stages | None" = None) -> None:
    """Train as the options say; after a signal, the step that is being done is finished first.

    stages: of methods, by kind; None: ours. Refused: the options cannot work. Damaged: training
    diverged, or a file could not be written. Ended: it was stopped.
    """
    from tierscale.models.train.recipes import STAGES
    from tierscale.models.train.run import run

    as_json = cli_args.pop("as_json")
    del cli_args["debug"]
    options = to_options(cli_args)
    weights, state = options.file(".safetensors"), options.file(".pt")
    content = {"output": str(weights), "card": str(options.file(".json")), "state": str(state)}
    with Draining() as draining:
        try:
            ended = run(
                options,
                draining.stop.is_set,
                say if as_json else write,
                warn,
                STAGES if stages is None else stages,
            )
        except FloatingPointError as error:
            raise Damaged(str(error)) from error
        except ValueError as error:
            raise Refused(str(error)) from error
        except OSError as error:
            raise Damaged(
                f"cannot write to {options.out} ({error}){how_to_resume(options)}"
            ) from error
        if not ended:
            raise draining.end(as_json, content, f"stopped; to resume, add --resume {state}")
    text = f"{weights} is ready: use it as a tier file:{weights}"
    emit(as_json, {"status": "done", **content, "error": None}, text)


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
    say(f"note: {text}")


def how_to_resume(options: "TrainOptions") -> str:
    """The end of a sentence about a failed write, where there is a checkpoint."""
    state = options.file(".pt")
    if not os.path.isfile(state):
        return ""
    return f"; the last checkpoint is whole: to resume, add --resume {state}"


@click.command("train", cls=TrainCommand, context_settings={"help_option_names": ["-h", "--help"]})
@training
@answering
def command(**cli_args: Any) -> None:
    """Train a network on photos of your own, from scratch or from weights that there are."""
    check_lasting(str(cli_args["out"]), "--out")
    run_training(cli_args)


def main(arguments: list[str] | None = None) -> None:
    """Run the command; exit codes are those of the tierscale command."""
    run_command(command, sys.argv[1:] if arguments is None else arguments, "tierscale train")


if __name__ == "__main__":
    main()
