"""Enlarge what is new or changed in an archive until the night is over: `tierscale nightly`.

A scheduler may also run this file.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

if __name__ == "__main__" and not __package__:
    # Run as a file, Python puts jobs/ on the path instead of the project's root.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import click

from tierscale.jobs.cli.exits import Draining, Ended, run_command
from tierscale.jobs.cli.options import answering, shared, to_options
from tierscale.jobs.cli.terminal import emit, say
from tierscale.jobs.cli.types import ShareType, TimeType
from tierscale.jobs.night_run import NightlyOptions, nightly
from tierscale.pipeline.dataset.night.ledger import Busy
from tierscale.pipeline.dataset.night.night_report import (
    summary_lines,
)
from tierscale.pipeline.errors import Interrupted

# Exit code when the window closed with work left, or another run holds the ledger.
LEFT = 75


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--archive", required=True, metavar="DIR", help="Folder of images, with all folders in it."
)
@click.option(
    "--output",
    required=True,
    metavar="DIR",
    help="Folder for the enlarged images, in the same folders as in the archive; outside of it.",
)
@click.option(
    "--ledger",
    required=True,
    metavar="FILE",
    help="File that records every image from night to night, on a local disk; made if missing.",
)
@click.option(
    "--until", required=True, metavar="HH:MM", help="Local time at which the window closes."
)
@shared
@click.option(
    "--source-root",
    "source_roots",
    multiple=True,
    metavar="DIR",
    help="Folder outside the archive to which links in it may lead; may be repeated.",
)
@click.option("--retry-parked", is_flag=True, help="Try images again that failed on three nights.")
@click.option("--overwrite", is_flag=True, help="Replace what was enlarged with other options.")
@click.option(
    "--settle",
    type=TimeType(),
    default="0s",
    show_default=True,
    help="Leave images for another night that were changed more recently, such as 10m.",
)
@click.option(
    "--scrub",
    type=ShareType(),
    default="0",
    show_default=True,
    metavar="SHARE",
    help="Read this share of the finished outputs again, such as 1%, and repair what is damaged.",
)
@answering
def command(as_json: bool, debug: bool, **cli_args: Any) -> None:
    """Enlarge what is new or changed in an archive until the window closes.

    The exit code is 0 when all is done, 75 when work is left or another nightly is running, and 1
    when images failed; parked ones do not count. --budget and --deadline are for each image by
    itself.
    """
    job = to_job(cli_args)
    with Draining() as draining:
        try:
            summary = nightly(job, draining)
        except Busy as error:
            if as_json:
                emit(True, {"status": "left", "error": str(error)}, "")
            say(f"tierscale: {error}")
            raise Ended(LEFT) from None
        except Interrupted:
            raise draining.end(
                as_json,
                {"output": job.output},
                "stopped before any image was begun; to begin again, run the same command",
            ) from None
        emit(as_json, summary, summary_lines(summary))
        if summary["error"]:
            say(f"tierscale: {summary['error']}")
        codes = {"done": 0, "left": LEFT, "failed": 1, "interrupted": draining.code}
        if code := codes[summary["status"]]:
            raise Ended(code)


def to_job(cli_args: Mapping[str, Any]) -> NightlyOptions:
    """The night that the command's options ask for. Refused: a value that cannot be."""
    names = ("archive", "output", "ledger", "until", "layout", "workers", "max_memory")
    flags = ("overwrite", "retry_parked", "source_roots", "settle", "scrub")
    return NightlyOptions(
        image=to_options(dict(cli_args)),
        ray=cli_args["ray_address"],
        **{name: cli_args[name] for name in names + flags},
    )


def main(arguments: list[str] | None = None) -> None:
    """Run the job; exit codes as of the tierscale command."""
    run_command(command, sys.argv[1:] if arguments is None else arguments, "tierscale nightly")


if __name__ == "__main__":
    main()
