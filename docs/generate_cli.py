"""Write docs/cli.md from the commands themselves: `make docs`."""

import inspect
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import click

from tierscale.jobs import upscale_dataset
from tierscale.jobs.cli.main import COMMANDS, cli
from tierscale.jobs.cli.options import answering, shared

PAGE = Path(__file__).with_name("cli.md")
WIDTH = 120

HEAD = """\
# The command line

This page is generated from the commands by `make docs`; do not edit it. `--help` shows the same.

## Exit codes

| code | meaning |
|---|---|
| 0 | done, every shard verified |
| 1 | work failed: damaged source, decode error, full disk, checksum mismatch, a bad manifest row |
| 2 | refused before work: arguments, missing file, unknown tier, too little memory, an output that\
 is not ours or of another plan |
| 75 | nightly: the window closed with work left, or another run holds the ledger |
| 130, 143 | stopped by SIGINT or SIGTERM, after what was in flight was finished |

A failure is one sentence on stderr: what failed, why, and what to do. With `--json`, stdout holds
exactly one JSON object, also on failure (`"status": "failed"`, `"error": "…"`). A traceback is
shown with `--debug` only.
"""


def page() -> str:
    """The whole page."""
    common = [*options_of(shared), *options_of(answering)]
    names = {str(param.name) for param in common}
    sections = [HEAD, "## Options of all enlarging commands\n", *map(entry, common)]
    context = click.Context(cli, info_name="tierscale")
    for name in COMMANDS:
        command = cli.get_command(context, name)
        if command is None:
            raise KeyError(name)
        sections += section(command, f"tierscale {name}", names)
    sections += section(upscale_dataset.command, "python -m tierscale.jobs.upscale_dataset", names)
    return "\n".join(sections).rstrip() + "\n"


def section(command: click.Command, path: str, common: set[str]) -> Iterator[str]:
    """A command: its usage, what it does, its options; then its own commands."""
    context = click.Context(command, info_name=path)
    yield f"\n## `{path}`\n"
    yield f"    {path} {' '.join(command.collect_usage_pieces(context))}\n"
    yield paragraphs(command.help or "")
    shown = [
        param for param in command.params if isinstance(param, click.Option) and not param.hidden
    ]
    if common <= {str(param.name) for param in command.params}:
        shown = [param for param in shown if param.name not in common]
        yield paragraphs(
            "All [options of enlarging commands](#options-of-all-enlarging-commands) and:"
        )
    yield from map(entry, shown)
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from section(child, f"{path} {name}", common)


def options_of(decorator: object) -> list[click.Option]:
    """The options that a decorator gives to a command, hidden ones apart."""
    command = click.command()(decorator(lambda **cli_args: None))  # type: ignore[operator]
    return [
        param for param in command.params if isinstance(param, click.Option) and not param.hidden
    ]


def entry(option: click.Option) -> str:
    """An option as an item of a list."""
    context = click.Context(click.Command("any"))
    record = option.get_help_record(context)
    if record is None:
        raise ValueError(f"{option.name} is hidden")
    return item(*record)


def item(flags: str, text: str) -> str:
    """An item of a list, wrapped."""
    return textwrap.fill(
        f"- `{flags}`: {' '.join(text.split())}",
        WIDTH,
        subsequent_indent="  ",
        break_on_hyphens=False,
        break_long_words=False,
    )


def paragraphs(text: str) -> str:
    """A help text in wrapped paragraphs."""
    parts = inspect.cleandoc(text).split("\n\n")
    return (
        "\n\n".join(
            textwrap.fill(" ".join(part.split()), WIDTH, break_on_hyphens=False) for part in parts
        )
        + "\n"
    )


if __name__ == "__main__":
    PAGE.write_text(page())
    sys.stderr.write(f"{PAGE} is up to date\n")
