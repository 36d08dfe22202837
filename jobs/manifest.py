"""Write a manifest of the images in a folder: `tierscale manifest`."""

from pathlib import Path
from typing import Any

import click

from tierscale.jobs.cli.exits import Ended
from tierscale.jobs.cli.options import answering
from tierscale.jobs.cli.terminal import emit, say
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.storage.path_policy import check_lasting, check_secrets
from tierscale.pipeline.storage.paths import normalize_root
from tierscale.pipeline.wording import counted


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("folder", metavar="DIR")
@click.option(
    "-o",
    "--output",
    "table",
    required=True,
    metavar="TABLE",
    help="File of the manifest: .parquet, .csv or .jsonl.",
)
@click.option(
    "--pattern",
    default="*",
    show_default=True,
    metavar="PATTERN",
    help="Take only images with such names, as in a shell: '*.tif'.",
)
@click.option(
    "--output-root",
    metavar="DIR",
    help="Name an output for each image, in a tree of the same shape below this folder.",
)
@click.option("--overwrite", is_flag=True, help="Replace TABLE if there is one.")
@answering
def command(folder: str, table: str, as_json: bool, debug: bool, **cli_args: Any) -> None:
    """Write a table of all images in DIR, a folder or a URI, and in the folders below it.

    The table is the manifest of tierscale dataset. Edit it to give rows their own options. Hidden
    names, linked folders and outputs of tierscale are passed over.
    """
    from tierscale.pipeline.dataset.manifest import Manifest

    output_root, pattern = cli_args["output_root"], cli_args["pattern"]
    for path in (folder, table, output_root or ""):
        check_secrets(path)
    _check_table(table, cli_args["overwrite"])
    problems: list[str] = []
    root = None if output_root is None else normalize_root(output_root)
    manifest = Manifest.scan(normalize_root(folder), pattern, root, problems.append)
    if not len(manifest) and not problems:
        raise Refused(
            f"there are no images below {folder} whose names match {pattern!r}; check the path, or"
            " change --pattern"
        )
    manifest.write(table)
    for problem in problems:
        say(problem)
    text = f"{table}: {counted(len(manifest), 'image')}"
    error = f"{text}; {problems[0]}" if problems else None
    content = {
        "status": "failed" if problems else "done",
        "images": len(manifest),
        "manifest": str(Path(table).absolute()),
        "problems": problems,
        "error": error,
    }
    emit(as_json, content, text)
    if problems:
        raise Ended(1)


def _check_table(table: str, overwrite: bool) -> None:
    """Refuse a table that cannot be written, or that somebody may have edited."""
    from tierscale.pipeline.dataset.tables import READERS

    check_lasting(table, "--output")
    if Path(table).suffix.lower() not in READERS:
        raise Refused(
            f"the manifest {table} does not end in .parquet, .csv or .jsonl; name it by one of them"
        )
    if "://" in table:
        raise Refused(f"the manifest {table} is not a local path; write the table to a local file")
    if Path(table).exists() and not overwrite:
        raise Refused(f"the manifest {table} exists; give --overwrite to replace it")
    if not Path(table).absolute().parent.is_dir():
        raise Refused(f"there is no folder for the manifest {table}; make it first")
