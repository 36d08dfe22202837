"""Enlarge every image of a manifest on Ray.

`ray job submit … -- python jobs/upscale_dataset.py`, or run directly, or call upscale_dataset().
"""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__" and not __package__:
    # Run as a file, Python puts jobs/ on the path instead of the project's root.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import click
import pyarrow as pa

from tierscale.jobs.cli.exits import Draining, Ended, run_command
from tierscale.jobs.cli.options import (
    Command,
    answering,
    shared,
    to_options,
    with_options,
)
from tierscale.jobs.cli.terminal import emit, say
from tierscale.jobs.manifest_run import ManifestJob, run_manifest
from tierscale.pipeline.dataset.manifest import Manifest
from tierscale.pipeline.dataset.results import write_table
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.storage.failures import storage_failure
from tierscale.pipeline.storage.path_policy import check_lasting, check_secrets
from tierscale.pipeline.storage.paths import join_path, normalize_root, place
from tierscale.pipeline.wording import counted


def upscale_dataset(
    manifest: Manifest,
    options: Options | None = None,
    *,
    output_root: str | Path | None = None,
    source_roots: Sequence[str | Path] = (),
    ray: str = "local",
    layout: str = "auto",
    workers: int | None = None,
    max_memory: int | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> pa.Table:
    """Enlarge all images of a manifest; one row of the result for each, in the manifest's order.

    A bad row or a failing image is listed and never stops the others. To resume, call it again.

    - manifest: the images, and what each row says itself.
    - options: what rows do not say; a Budget or a Deadline is that of all rows together.
    - output_root: folder for outputs of rows that name none; it mirrors the manifest's folder.
    - source_roots: folders below which all sources must lie; none: anywhere.
    - ray: "local" (the Ray that this job runs in, else its own), "none" (threads), or an address.
    - layout: "together" is one pool of workers, "split" gives the full tier its own, or "auto".
    - workers: how many; None: one for each core or GPU.
    - max_memory: bytes that all workers together may use; None: 90 % of the machine.
    - overwrite: replace outputs of tierscale that were made with other options.
    - quiet: show no progress on stderr.

    The columns of the result: row, source, output, status (done, skipped, failed or quarantined),
    height, width, channels, tiles (number by tier), cost (multiply-adds), cost_share (of the full
    tier everywhere), seconds, error, plan, family, notes. Raises Refused: the workers cannot start.
    """
    job = ManifestJob(
        options or Options(),
        output_root=None if output_root is None else str(output_root),
        source_roots=tuple(map(str, source_roots)),
        ray=ray,
        layout=layout,
        workers=workers,
        max_memory=max_memory,
        overwrite=overwrite,
        quiet=quiet,
    )
    return run_manifest(manifest, job)


def dataset_options(function: Command) -> Command:
    """Give a command the options of a manifest's run."""
    return with_options(
        [
            click.option(
                "--output-root",
                metavar="DIR",
                help=(
                    "Folder for outputs of rows that name none. They lie below it as their sources"
                    " lie below the manifest's folder; a source from elsewhere keeps its whole"
                    " path."
                ),
            ),
            shared,
            click.option(
                "--source-root",
                "source_roots",
                multiple=True,
                metavar="DIR",
                help="Folder below which all sources must lie; may be repeated.",
            ),
            click.option(
                "--results",
                metavar="FILE",
                help=(
                    "Parquet file for the result table (default: results.parquet in the output"
                    " root)."
                ),
            ),
            click.option(
                "--overwrite",
                is_flag=True,
                help="Replace outputs of tierscale that have another plan.",
            ),
            answering,
        ],
        function,
    )


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--manifest",
    "manifest_path",
    required=True,
    metavar="FILE",
    help="Table of images: .parquet, .csv or .jsonl with a column source.",
)
@dataset_options
def command(as_json: bool, debug: bool, **cli_args: Any) -> None:
    """Enlarge every image of a manifest. To resume after an interruption, run the same command.

    --budget is a share of the full tier's cost for all images together: easy ones leave more to
    hard ones. A budget in the manifest is for its image alone. --deadline is for all images
    together too; one in the manifest is for its image alone.
    """
    run(cli_args, as_json)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("manifest_path", metavar="MANIFEST")
@dataset_options
def dataset(as_json: bool, debug: bool, **cli_args: Any) -> None:
    """Enlarge every image of MANIFEST, a table: .parquet, .csv or .jsonl with a column source.

    To resume after an interruption, run the same command. --budget is a share of the full tier's
    cost for all images together: easy ones leave more to hard ones. A budget in the manifest is for
    its image alone. --deadline is for all images together too; one in the manifest is for its image
    alone.
    """
    run(cli_args, as_json)


def run(cli_args: Mapping[str, Any], as_json: bool) -> None:
    """Carry out a manifest as a command asks for it, and write and tell how it ended."""
    check_secrets(cli_args["manifest_path"])
    root, path = cli_args["output_root"], cli_args["results"]
    # Without a root, outputs lie below the current folder.
    check_lasting(root or os.getcwd(), "--output-root" if root else "the current folder")
    manifest = Manifest.read(cli_args["manifest_path"])
    if path is None and root is not None:
        path = join_path(root, "results.parquet")
    if path is not None:
        check_lasting(path, "--results")
        path = normalize_root(path)
        try:
            place(path).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_failure(path, error) from error
    with Draining() as draining:
        table = run_manifest(manifest, to_job(cli_args), draining)
        if path is not None:
            write_table(path, table)
        _report(table, path, draining, as_json)


def to_job(cli_args: Mapping[str, Any]) -> ManifestJob:
    """The job that the command's options ask for. Refused: a value that cannot be."""
    names = ("output_root", "layout", "workers", "max_memory", "overwrite", "source_roots")
    return ManifestJob(
        to_options(dict(cli_args)),
        ray=cli_args["ray_address"],
        output_bounds=os.getcwd(),
        **{name: cli_args[name] for name in names},
    )


def _report(table: pa.Table, path: str | None, draining: Draining, as_json: bool) -> None:
    """Say how the images ended; Ended: not all are enlarged. path: of the written table."""
    failed = [row for row in table.to_pylist() if row["status"] not in ("done", "skipped")]
    for row in failed:
        named = row["error"].startswith("row ")
        say(row["error"] if named else f"row {row['row']}: {row['error']}")
    total, done = table.num_rows, table.num_rows - len(failed)
    text = f"{done} of {counted(total, 'image')} enlarged, {len(failed)} failed"
    text += f"; the table is {path}" if path else ""
    counts = {"images": total, "done": done, "failed": len(failed), "results": path}
    status = "interrupted" if draining.code else "failed" if failed else "done"
    emit(as_json, {"status": status, **counts, "error": text if failed else None}, text)
    if draining.code:
        say("stopped; to resume, run the same command")
        raise Ended(draining.code)
    if failed:
        raise Ended(1)


def main(arguments: list[str] | None = None) -> None:
    """Run the job; exit codes are those of the tierscale command."""
    run_command(
        command,
        sys.argv[1:] if arguments is None else arguments,
        "python -m tierscale.jobs.upscale_dataset",
    )


if __name__ == "__main__":
    main()
