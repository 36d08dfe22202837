"""Enlarge what is new or changed in an archive until the night is over: `tierscale nightly`, or run
as a file by a scheduler.
"""

import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

if __name__ == "__main__" and not __package__:
    # Run as a file, Python puts jobs/ on the path instead of the project's root.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import click

from tierscale.cluster.session import session
from tierscale.jobs.cli.exits import Draining, Ended, run_command
from tierscale.jobs.cli.options import answering, shared, to_options
from tierscale.jobs.cli.progress import Bar
from tierscale.jobs.cli.terminal import emit, say
from tierscale.jobs.shift import NightlyOptions, Shift, probe
from tierscale.pipeline.dataset import night_report as morning
from tierscale.pipeline.dataset.ledger import Busy, Changes, Late, Ledger
from tierscale.pipeline.dataset.scan import absent, content_sha256, scan
from tierscale.pipeline.errors import Damaged, Interrupted, Refused
from tierscale.pipeline.run.draft import check_options
from tierscale.pipeline.run.resources import check_least
from tierscale.pipeline.storage.path_policy import check_secrets, output_outside

# Exit code when the window closed with work left, or another run holds the ledger.
LEFT = 75
Listed = TypeVar("Listed")


def closing(until: str, now: float) -> float:
    """When a local clock next shows HH:MM after `now`; both in seconds since the epoch. Refused: it
    is no time of day.
    """
    if not re.fullmatch(r"([01]?\d|2[0-3]):[0-5]\d", until):
        raise Refused(f"--until {until!r} is no time of day; write HH:MM, such as 06:00")
    hour, minute = map(int, until.split(":"))
    here = datetime.fromtimestamp(now)
    end = here.replace(hour=hour, minute=minute, second=0, microsecond=0)
    return (end if end > here else end + timedelta(days=1)).timestamp()


def check(job: NightlyOptions) -> None:
    """Refused: what would fail for every image alike, so that a slip of the pen never counts
    against the images.
    """
    for path in (job.archive, job.output, *job.source_roots):
        check_secrets(path)
    output_outside(job.output, job.archive)
    check_options(job.image)
    check_least(job.max_memory, job.workers or 1)
    try:
        probe(job.output)
    except Damaged as error:
        raise Refused(str(error)) from error


def nightly(
    job: NightlyOptions, draining: Draining | None = None, clock: Callable[[], float] = time.time
) -> dict[str, Any]:
    """One night: look for what is new or changed, enlarge it until the window closes, and report.

    The summary: its "status" is "done", "left", "failed" or "interrupted". Busy: another nightly
    holds the ledger. Refused: as of check().
    """
    began = clock()
    until = closing(job.until, began)
    night = datetime.fromtimestamp(until).date().isoformat()
    check(job)
    draining = draining or Draining()
    notes: list[str] = []
    lost = threading.Event()

    def take_over() -> None:
        lost.set()
        draining.stop.set()

    overtaken = Busy(
        f"another nightly took {job.ledger} over, because this one gave no sign for long; it goes"
        " on alone"
    )
    with Ledger(job.ledger, clock) as ledger, ledger.lease(take_over):
        try:
            changes = look(job, ledger, draining.stop, until, notes)
        except Interrupted:
            raise overtaken if lost.is_set() else Interrupted from None
        ledger.open_night(night, job.retry_parked, job.wish if job.overwrite else None)
        if ledger.counts(night)["left"] and not draining.stop.is_set() and clock() < until:
            with (
                session(job.ray, job.layout, job.image.device, job.workers) as pool,
                Bar(job.quiet) as bar,
            ):
                check_least(job.max_memory, pool.width)
                draining.arm()
                shift = Shift(job, ledger, pool, draining.stop)
                shift.work(night, until, bar)
            notes.extend([shift.trouble] if shift.trouble else [])
        if lost.is_set():
            raise overtaken
        counts = summed(changes, ledger.counts(night))
        told = morning.Night(night, counts, began, clock(), notes)
        files = morning.write(Path(f"{job.ledger}.reports"), told, ledger.rows(night))
        failure = ledger.first_failed(night) if counts["failed"] else None
    status = (
        "interrupted"
        if draining.code
        else "failed"
        if counts["failed"] or notes
        else "left"
        if counts["left"]
        else "done"
    )
    error = said(status, counts, notes, failure, files["html"])
    return {
        "status": status,
        "night": night,
        **counts,
        "report": files,
        "notes": notes,
        "error": error,
    }


def look(
    job: NightlyOptions, ledger: Ledger, stop: threading.Event, until: float, notes: list[str]
) -> Changes:
    """Bring the ledger up to what lies in the archive and at the outputs. Interrupted: it was told
    to stop.

    until: when the window closes; contents that are not looked at by then stay in doubt. notes:
    what went wrong is added.
    """

    def in_time() -> None:
        if stop.is_set():
            raise Interrupted
        if ledger.clock() >= until:
            raise Late

    changes = ledger.note(
        stoppable(scan(job.archive, notes.append), stop),
        lambda source: content_sha256(source, in_time),
    )
    if changes.gone and not (
        changes.new or changes.changed or changes.untouched or changes.undecided
    ):
        notes.append(
            f"none of the {changes.gone} images that are known lies in {job.archive} any more;"
            " check whether its disk is mounted, or name another --ledger if the archive was"
            " emptied"
        )
    ledger.await_again(
        job.output_of, lambda outputs: stoppable(absent(outputs, notes.append), stop)
    )
    return changes


def stoppable(found: Iterator[Listed], stop: threading.Event) -> Iterator[Listed]:
    """A listing that ends with Interrupted after a signal."""
    for one in found:
        if stop.is_set():
            raise Interrupted
        yield one


def summed(changes: Changes, counts: dict[str, int]) -> dict[str, int]:
    """The night in numbers of images. failed: on this night, those that were parked by it included.
    left: those in doubt included.
    """
    left = counts["left"] + changes.undecided
    return asdict(changes) | {
        "done": counts["worked"],
        "failed": counts["wrong"],
        "parked": counts["parked"],
        "left": left,
    }


def said(
    status: str,
    counts: dict[str, int],
    notes: list[str],
    failure: tuple[str, str] | None,
    report: str,
) -> str | None:
    """What a night that did not end well has to say, in one sentence; None for one that did.

    failure: an image that failed, and why. report: path of the page that tells all.
    """
    if status == "done":
        return None
    if notes:
        return notes[0]
    if status == "failed" and failure is not None:
        first = failure[1] if failure[0] in failure[1] else f"{failure[0]}: {failure[1]}"
        return (
            f"images that failed: {counts['failed']}, the first: {first}; {report} tells of all, "
            "and they are tried on three nights before they are parked"
        )
    why = "stopped" if status == "interrupted" else "the window closed"
    return f"{why}, and images that are left: {counts['left']}; the same command goes on from here"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--archive", required=True, help="The tree of images.")
@click.option(
    "--output",
    required=True,
    help="Where the enlarged images go, in a tree of the same shape; outside the archive.",
)
@click.option(
    "--ledger",
    required=True,
    help="File that remembers every image from night to night; on a local disk. Made if missing.",
)
@click.option("--until", required=True, help="HH:MM, local time: when the window closes.")
@shared
@click.option(
    "--source-root",
    "source_roots",
    multiple=True,
    help="Folder outside the archive to which links in it may lead.",
)
@click.option(
    "--retry-parked", is_flag=True, help="Try again what was given up after three nights."
)
@click.option("--overwrite", is_flag=True, help="Do again what was enlarged with other options.")
@answering
def command(
    archive: str,
    output: str,
    ledger: str,
    until: str,
    source_roots: tuple[str, ...],
    retry_parked: bool,
    overwrite: bool,
    as_json: bool,
    debug: bool,
    **given: Any,
) -> None:
    """Enlarge what is new or changed in an archive until the window closes.

    Ends with 0 when all is done, 75 when work is left or another nightly is at it, 1 when images
    failed. What is parked does not count. --budget and --deadline are for each image by itself.
    """
    # Submitted to a running cluster: that is where the work belongs.
    ray = (
        "auto"
        if given["ray_address"] == "local" and os.environ.get("RAY_ADDRESS")
        else given["ray_address"]
    )
    where = (ray, given["layout"], given["workers"], given["max_memory"])
    job = NightlyOptions(
        archive,
        output,
        ledger,
        until,
        to_options(given),
        *where,
        overwrite,
        retry_parked,
        source_roots=source_roots,
    )
    with Draining() as draining:
        try:
            found = nightly(job, draining)
        except Busy as error:
            if as_json:
                emit(True, {"status": "left", "error": str(error)}, "")
            say(f"tierscale: {error}")
            raise Ended(LEFT) from None
        except Interrupted:
            raise draining.end(
                as_json,
                {"output": output},
                "stopped before any image was begun; the same command begins anew",
            ) from None
        emit(as_json, found, tell(found))
        if found["error"]:
            say(f"tierscale: {found['error']}")
        code = {"done": 0, "left": LEFT, "failed": 1, "interrupted": draining.code}[found["status"]]
        if code:
            raise Ended(code)


def tell(found: dict[str, Any]) -> list[str]:
    """The summary of a night for a person."""
    looked = (
        f"{found['new']} new, {found['changed']} changed, {found['untouched']} untouched,"
        f" {found['gone']} no longer there"
    )
    worked = (
        f"{found['done']} enlarged, {found['failed']} failed, {found['left']} left,"
        f" {found['parked']} parked"
    )
    return [
        f"the night to {found['night']}: {looked}; {worked}",
        f"  report           {found['report']['html']}",
    ]


def main(arguments: list[str] | None = None) -> None:
    """Run the job; exit codes as of the tierscale command."""
    run_command(command, sys.argv[1:] if arguments is None else arguments)


if __name__ == "__main__":
    main()
