"""The tierscale command: a group whose commands are imported only when they are used."""

import importlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

import click

from tierscale.jobs.cli.exits import run_command


class Entry(NamedTuple):
    """Where a command is defined, and its line in the list of commands."""

    module: str
    name: str
    help: str


# In the order in which --help lists them.
COMMANDS = {
    "upscale": Entry("tierscale.jobs.cli.upscale", "upscale", "Enlarge an image."),
    "plan": Entry("tierscale.jobs.cli.upscale", "plan", "Show what upscale would do and take."),
    "status": Entry("tierscale.jobs.cli.inspect", "status", "Show the progress of an output."),
    "verify": Entry("tierscale.jobs.verify", "command", "Check outputs against their receipts."),
    "explain": Entry("tierscale.jobs.cli.inspect", "explain", "Show where the compute went."),
    "view": Entry("tierscale.jobs.view", "view", "Look at an output beside its source."),
    "export": Entry("tierscale.jobs.cli.export", "export", "Write an output as a TIFF or PNG."),
    "ingest": Entry("tierscale.jobs.cli.export", "ingest", "Copy an image into a zarr array."),
    "models": Entry("tierscale.jobs.cli.models", "models", "List, convert, calibrate networks."),
    "train": Entry("tierscale.jobs.train", "command", "Train a network."),
    "evaluate": Entry("tierscale.jobs.evaluate", "command", "Measure PSNR and SSIM on images."),
    "manifest": Entry("tierscale.jobs.manifest", "command", "List the images of a folder."),
    "dataset": Entry(
        "tierscale.jobs.upscale_dataset", "dataset", "Enlarge every image of a manifest."
    ),
    "nightly": Entry("tierscale.jobs.nightly", "command", "Enlarge an archive, night by night."),
}


class LazyGroup(click.Group):
    """The commands of COMMANDS, each imported when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order of COMMANDS."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; None: there is none of this name."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command = getattr(importlib.import_module(entry.module), entry.name)
        if not isinstance(command, click.Command):
            raise TypeError(f"{entry.module}.{entry.name} is not a command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tierscale", prog_name="tierscale")
def cli() -> None:
    """Enlarge very large images: a large network only where the picture needs one."""


def main(cli_args: Sequence[str] | None = None) -> None:
    """Run the command; every failure is one sentence on stderr and an exit code (docs/cli.md)."""
    run_command(cli, sys.argv[1:] if cli_args is None else cli_args)


if __name__ == "__main__":
    main()
