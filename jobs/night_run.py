"""One night over an archive, in one session of workers."""

import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from tierscale.cluster.session import session, where_submitted
from tierscale.jobs.cli.exits import Draining
from tierscale.jobs.cli.progress import Bar
from tierscale.jobs.cli.terminal import say
from tierscale.pipeline.dataset.night.archive_run import ArchiveRun, probe_output
from tierscale.pipeline.dataset.night.ledger import Busy, Ledger
from tierscale.pipeline.dataset.night.night_report import (
    NightSummary,
    error_sentence,
    night_counts,
    write_report,
)
from tierscale.pipeline.dataset.night.scrub import Scrubbed, Window, scrub
from tierscale.pipeline.dataset.night.settling import Settling
from tierscale.pipeline.dataset.night.survey import survey
from tierscale.pipeline.dataset.night.task import ArchiveTask
from tierscale.pipeline.errors import Damaged, Interrupted, Refused
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.run.resources import check_least
from tierscale.pipeline.run.scoring.scorer import check_options
from tierscale.pipeline.storage.path_policy import check_lasting, check_secrets, output_outside


@dataclass(frozen=True, slots=True)
class NightlyOptions:
    """What a night is to do, when it ends, and who does the work.

    archive, output, max_memory, overwrite, source_roots: as of ArchiveTask. ledger: path of its
    file. until: HH:MM, local time. image: how every image is enlarged. ray:
    "local", "none" or an address. retry_parked: try again what was given up. settle: seconds for
    which sources must have been left alone; 0 for any. scrub: share of the finished outputs that
    are read again. quiet: no progress.
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
    settle: float = 0.0
    scrub: float = 0.0

    def __post_init__(self) -> None:
        if "://" not in self.ledger:
            object.__setattr__(self, "ledger", os.path.abspath(self.ledger))

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
            Settling(self.settle),
        )


def closing_time(until: str, now: float) -> float:
    """When a local clock next shows HH:MM after `now`; both in seconds since the epoch.

    Refused: it is not a time of day.
    """
    if not re.fullmatch(r"([01]?\d|2[0-3]):[0-5]\d", until):
        raise Refused(f"--until {until!r} is not a time of day; write HH:MM, such as 06:00")
    hour, minute = map(int, until.split(":"))
    here = datetime.fromtimestamp(now)
    end = here.replace(hour=hour, minute=minute, second=0, microsecond=0)
    return (end if end > here else end + timedelta(days=1)).timestamp()


def check(job: NightlyOptions) -> None:
    """Refuse what would fail for every image alike, so that it never counts against them."""
    task = job.task
    for path in (task.archive, task.output, *task.source_roots):
        check_secrets(path)
    check_lasting(job.output, "--output")
    check_lasting(job.ledger, "--ledger")
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
    with Ledger(job.ledger, clock) as ledger, held(ledger, draining.stop) as check_held:
        found = survey(job.task, ledger, draining.stop, until)
        ledger.begin_night(night, job.retry_parked, job.task.is_redone)
        worked = Worked()
        if not (found.closed or draining.stop.is_set() or clock() >= until):
            worked = _work(job, ledger, draining, night, until)
        check_held()
        notes = [*found.problems, *worked.problems]
        counts = night_counts(found.changes, ledger.counts(night))
        counts["unsettled"] += worked.unsettled
        counts |= {"read_again": worked.scrubbed.outputs, "healed": worked.scrubbed.healed}
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


@dataclass(frozen=True, slots=True)
class Worked:
    """What came of a night's work beside the images in the ledger.

    problems: sentences on what is wrong beside single images. unsettled: number of images that were
    still being written.
    """

    problems: tuple[str, ...] = ()
    unsettled: int = 0
    scrubbed: Scrubbed = field(default_factory=Scrubbed)


def _work(
    job: NightlyOptions, ledger: Ledger, draining: Draining, night: str, until: float
) -> Worked:
    """Read finished outputs again, and enlarge what is pending, until the window closes."""
    if not ledger.has_work() and not ledger.oldest_outputs(job.scrub):
        return Worked()
    with (
        session(where_submitted(job.ray), job.layout, job.image.device, job.workers) as pool,
        Bar(job.quiet) as bar,
    ):
        check_least(job.max_memory, pool.width)
        draining.arm()
        window = Window(draining.stop, lambda: ledger.clock() >= until)
        scrubbed = scrub(ledger, pool, job.scrub, window, bar) if job.scrub else Scrubbed()
        for text in scrubbed.damage:
            say(text)
        run = ArchiveRun(job.task, ledger, pool, draining.stop, say)
        run.work(night, until, bar)
    return Worked((*scrubbed.problems, *run.problems), run.unsettled, scrubbed)
