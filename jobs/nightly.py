"""Enlarge what is new or changed in an archive until the night is over: `tierscale nightly`.

A scheduler may also run this file.
"""

import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

if __name__ == "__main__" and not __package__:
    # Run as a file, Python puts jobs/ on the path instead of the project's root.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import click

from tierscale.cluster.session import session, where_submitted
from tierscale.jobs.cli.exits import Draining, Ended, run_command
from tierscale.jobs.cli.options import answering, shared, to_options
from tierscale.jobs.cli.progress import Bar
from tierscale.jobs.cli.terminal import emit, say
from tierscale.pipeline.dataset.archive_run import (
    ArchiveRun,
    ArchiveTask,
    probe_output,
    update_ledger,
)
from tierscale.pipeline.dataset.ledger import Busy, Ledger
from tierscale.pipeline.dataset.night_report import (
    NightSummary,
    error_sentence,
    night_counts,
    summary_lines,
    write_report,
)
from tierscale.pipeline.errors import Damaged, Interrupted, Refused
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.run.resources import check_least
from tierscale.pipeline.run.tiers import check_options
from tierscale.pipeline.storage.path_policy import check_secrets, output_outside

# Exit code when the window closed with work left, or another run holds the ledger.
LEFT = 75


@dataclass(frozen=True, slots=True)
class NightlyOptions:
    """What a night is to do, when it ends, and who does the work.

    archive, output, max_memory, overwrite, source_roots: as of ArchiveTask. ledger: path of its
    file. until: HH:MM, local time. image: how every image is enlarged. ray:
    "local", "none" or an address. retry_parked: try again what was given up. quiet: no progress.
    """

    archive: str
    output: str
    ledger: str
    until: str
    image: Options = field(default_factory=Options)
    ray: str = "local"
    layout: str = "auto"
    workers: int | None = None
    max_memory: int | None = None
    overwrite: bool = False
    retry_parked: bool = False
    quiet: bool = False
    source_roots: tuple[str, ...] = ()

    @property
    def task(self) -> ArchiveTask:
        """What is to become of the archive, on whatever night."""
        return ArchiveTask(
            self.archive,
            self.output,
            self.image,
            self.max_memory,
            self.overwrite,
            self.source_roots,
        )


def closing_time(until: str, now: float) -> float:
    """When a local clock next shows HH:MM after `now`; both in seconds since the epoch.

    Refused: it is no time of day.
    """
    if not re.fullmatch(r"([01]?\d|2[0-3]):[0-5]\d", until):
        raise Refused(f"--until {until!r} is no time of day; write HH:MM, such as 06:00")
    hour, minute = map(int, until.split(":"))
    here = datetime.fromtimestamp(now)
    end = here.replace(hour=hour, minute=minute, second=0, microsecond=0)
    return (end if end > here else end + timedelta(days=1)).timestamp()


def check(job: NightlyOptions) -> None:
    """Refuse what would fail for every image alike, so that it never counts against them."""
    task = job.task
    for path in (task.archive, task.output, *task.source_roots):
        check_secrets(path)
    output_outside(task.output, task.archive)
    check_options(job.image)
    check_least(job.max_memory, job.workers or 1)
    try:
        probe_output(task.output)
    except Damaged as error:
        raise Refused(str(error)) from error


@contextmanager
def held(ledger: Ledger, stop: threading.Event) -> Iterator[Callable[[], None]]:
    """Hold the ledger; the context's value raises Busy once another nightly has taken it over.

    stop: set when that happens. Busy: another nightly holds it, or took it over so that the work
    was interrupted.
    """
    taken_over = threading.Event()

    def lost() -> None:
        taken_over.set()
        stop.set()

    def check_held() -> None:
        if taken_over.is_set():
            raise Busy(
                f"another nightly took over {ledger.path}, because this one gave no sign of life"
                " for long; the other one continues alone"
            )

    with ledger.lease(lost):
        try:
            yield check_held
        except Interrupted:
            check_held()
            raise


def nightly(
    job: NightlyOptions, draining: Draining | None = None, clock: Callable[[], float] = time.time
) -> dict[str, Any]:
    """One night: find what is new or changed, enlarge it until the window closes, and report.

    The summary: its "status" is "done", "left", "failed" or "interrupted". Busy: another nightly
    holds the ledger. Refused: as of check().
    """
    began = clock()
    until = closing_time(job.until, began)
    night = datetime.fromtimestamp(until).date().isoformat()
    check(job)
    draining = draining or Draining()
    notes: list[str] = []
    with Ledger(job.ledger, clock) as ledger, held(ledger, draining.stop) as check_held:
        changes = update_ledger(job.task, ledger, draining.stop, until, notes)
        ledger.begin_night(night, job.retry_parked, job.task.is_redone)
        if ledger.counts(night)["left"] and not draining.stop.is_set() and clock() < until:
            notes.extend(_enlarge_pending(job, ledger, draining, night, until))
        check_held()
        counts = night_counts(changes, ledger.counts(night))
        summary = NightSummary(night, counts, began, clock(), notes)
        files = write_report(Path(f"{job.ledger}.reports"), summary, ledger.report_rows(night))
        failure = ledger.first_failure(night)
    status = (
        "interrupted"
        if draining.code
        else "failed"
        if counts["failed"] or notes
        else "left"
        if counts["left"]
        else "done"
    )
    return {
        "status": status,
        "night": night,
        **counts,
        "report": files,
        "notes": notes,
        "error": error_sentence(status, counts, notes, failure, files["html"]),
    }


def _enlarge_pending(
    job: NightlyOptions, ledger: Ledger, draining: Draining, night: str, until: float
) -> list[str]:
    """Enlarge what is pending until the window closes; why nothing can be enlarged any more."""
    with (
        session(where_submitted(job.ray), job.layout, job.image.device, job.workers) as pool,
        Bar(job.quiet) as bar,
    ):
        check_least(job.max_memory, pool.width)
        draining.arm()
        run = ArchiveRun(job.task, ledger, pool, draining.stop, say)
        run.work(night, until, bar)
    return [run.trouble] if run.trouble else []


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
    flags = ("overwrite", "retry_parked", "source_roots")
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
