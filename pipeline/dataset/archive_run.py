"""The enlarging of an archive by its ledger, until nothing is pending or the window closes."""

import contextlib
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TypeVar

from tierscale.pipeline.dataset.ledger import Changes, Entry, Late, Ledger
from tierscale.pipeline.dataset.ledger_schema import asks_otherwise, ledger_text
from tierscale.pipeline.dataset.output_paths import OutputPaths
from tierscale.pipeline.dataset.results import ImageResult
from tierscale.pipeline.dataset.runner import (
    Cause,
    Enlarged,
    NotEnlarged,
    Outcome,
    QueuedJob,
    enlarge,
    run_jobs,
)
from tierscale.pipeline.dataset.scan import content_sha256, missing_outputs, scan
from tierscale.pipeline.errors import Damaged, Interrupted, Refused
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.plan.plan import Plan
from tierscale.pipeline.run.job import Controls, ImageJob
from tierscale.pipeline.run.prescan import Progress
from tierscale.pipeline.run.workers.pool import Pool
from tierscale.pipeline.run.workers.prescan_tasks import CheckReady
from tierscale.pipeline.storage.atomic import write_bytes
from tierscale.pipeline.storage.path_policy import check_source, output_below, output_outside
from tierscale.pipeline.storage.paths import normalize_root, place

# Bytes of the file that tells whether anything can be written at all.
PROBE = 1 << 16
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class ArchiveTask:
    """What is to become of an archive. Folders and URIs are kept as of normalize_root.

    archive: the tree of sources; output: where their enlarged images go, in a tree of the same
    shape. options: how every image is enlarged. max_memory: bytes. overwrite: enlarge again what
    was enlarged with other options. source_roots: where links in the archive may lead beside it.
    """

    archive: str
    output: str
    options: Options = field(default_factory=Options)
    max_memory: int | None = None
    overwrite: bool = False
    source_roots: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "archive", normalize_root(self.archive))
        object.__setattr__(self, "output", normalize_root(self.output))
        object.__setattr__(self, "source_roots", tuple(map(normalize_root, self.source_roots)))

    @property
    def options_text(self) -> str:
        """The options as the ledger keeps them: equal texts ask for equal outputs."""
        return ledger_text(self.options)

    def is_redone(self, options_text: str | None) -> bool:
        """Whether what was done with some options, as the ledger keeps them, is done again."""
        return self.overwrite and asks_otherwise(options_text, self.options)

    def output_paths(self) -> OutputPaths:
        """Where the images go."""
        return OutputPaths(self.archive, self.output)


def update_ledger(
    task: ArchiveTask, ledger: Ledger, stop: threading.Event, until: float, notes: list[str]
) -> Changes:
    """Bring the ledger up to what lies in the archive and among the outputs.

    until: when the window closes, by the ledger's clock; contents that were not compared by then
    stay in doubt. notes: sentences on what went wrong are added. Interrupted: `stop` was set.
    """

    def check_time() -> None:
        if stop.is_set():
            raise Interrupted
        if ledger.clock() >= until:
            raise Late

    changes = ledger.record_listing(
        interruptible(scan(task.archive, notes.append), stop),
        lambda source: content_sha256(source, check_time),
    )
    if changes.gone and not (
        changes.new or changes.changed or changes.untouched or changes.undecided
    ):
        notes.append(
            f"none of the {changes.gone} images that are known lies in {task.archive} any more;"
            " check whether its disk is mounted, or name another --ledger if the archive was"
            " emptied"
        )
    ledger.requeue_missing(
        task.output_paths().of,
        lambda outputs: interruptible(missing_outputs(outputs, notes.append), stop),
    )
    return changes


def interruptible(items: Iterable[Item], stop: threading.Event) -> Iterator[Item]:
    """The items, until `stop` is set. Interrupted: it is."""
    for item in items:
        if stop.is_set():
            raise Interrupted
        yield item


class ArchiveRun:
    """The pending images of a ledger, several at a time, so that small ones keep all workers busy.

    stop: set when the run is over, for whatever reason. report: called with a line on each image
    that fails. trouble: why nothing can be enlarged any more, or None.
    """

    def __init__(
        self,
        task: ArchiveTask,
        ledger: Ledger,
        pool: Pool,
        stop: threading.Event,
        report: Callable[[str], None],
    ) -> None:
        self.task, self.ledger, self.pool, self.stop = task, ledger, pool, stop
        self.report = report
        self.trouble: str | None = None
        self._output_of = task.output_paths().of
        self._plans: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()

    def work(self, night: str, until: float, progress: Progress) -> None:
        """Enlarge image after image until none is pending or the ledger's clock shows `until`.

        What is under way then is left as it is; a later run resumes it. What an earlier run may
        have died of goes last, one at a time, so that no other image is blamed for it.
        """
        total, done = self.ledger.counts(night)["left"], 0
        progress("images", 0, total)

        def tick() -> None:
            if self.ledger.clock() >= until:
                self.stop.set()
            self._record_plans()

        for suspects, width in ((False, self.pool.width + 1), (True, 1)):
            entries = self._claim_all(night, suspects)
            with closing(run_jobs(entries, self._enlarge, width, self.stop, tick)) as outcomes:
                for source, outcome in outcomes:
                    self._settle(source, outcome)
                    done += 1
                    progress("images", done, total)

    def _claim_all(self, night: str, suspects: bool) -> Iterator[QueuedJob[str]]:
        """Claim entries of the ledger one by one, each when it can be begun."""
        options = self.task.options_text
        while entry := self.ledger.claim(night, options, self._output_of, suspects):
            yield self._job(entry)

    def _job(self, entry: Entry) -> QueuedJob[str]:
        image = ImageJob(
            entry.source,
            entry.output,
            self.task.options,
            self.task.max_memory,
            overwrite=self.task.overwrite,
            renew=True,
            # Only what is known to be ours is replaced where other options are written.
            known=entry.plan is not None,
        )
        return QueuedJob(entry.source, image)

    def _enlarge(self, job: QueuedJob[str]) -> Enlarged:
        """One image from start to end; on a thread of its own."""
        source, output = job.image.source, job.image.output
        check_source(source, (self.task.archive, *self.task.source_roots))
        output_outside(output_below(output, self.task.output), self.task.archive)

        def on_plan(plan: Plan) -> None:
            self._plans.put((job.key, plan.digest))

        image = enlarge(job.image, self.pool, Controls(stop=self.stop, on_plan=on_plan))
        if image.source_sha256 is not None:
            return image
        try:
            return replace(image, source_sha256=content_sha256(source, self._check_stop))
        except Interrupted:  # the image is done; without a checksum the next doubt enlarges it anew
            return image

    def _check_stop(self) -> None:
        if self.stop.is_set():
            raise Interrupted

    def _record_plans(self) -> None:
        """Record plans as soon as they are made.

        The outputs are then known as ours also after this process is killed.
        """
        with contextlib.suppress(queue.Empty):
            while True:
                self.ledger.record_plan(*self._plans.get_nowait())

    def _settle(self, source: str, outcome: Outcome) -> None:
        """Record how an attempt ended."""
        self._record_plans()
        match outcome:
            case Enlarged():
                result = ImageResult.from_summary(outcome.summary)
                self.ledger.record_done(source, result, outcome.source_sha256)
            case NotEnlarged(cause=Cause.INTERRUPTED):
                self.ledger.release(source)
            case NotEnlarged(cause=Cause.HELD):
                self.ledger.release(source, "failed", outcome.error)
            case _:
                self._settle_failure(source, outcome)

    def _settle_failure(self, source: str, outcome: NotEnlarged) -> None:
        """Blame a failure on its image, or end the run where nothing can be enlarged any more."""
        trouble = outcome.error if outcome.cause is Cause.DISK_FULL else self._find_trouble(outcome)
        if trouble is None:
            text = outcome.error
            self.ledger.record_failure(source, text)
            self.report(text if source in text else f"{source}: {text}")
        else:
            self.ledger.release(source)
            self.trouble = self.trouble or trouble
            self.stop.set()

    def _find_trouble(self, outcome: NotEnlarged) -> str | None:
        """Why nothing can be enlarged any more: storage that takes nothing, workers that are gone.

        None: no such reason; the image is to blame.
        """
        try:
            probe_output(self.task.output)
            if outcome.cause is Cause.UNEXPECTED:
                self.pool.submit(CheckReady())
        except (Damaged, Refused) as error:
            return str(error)
        except RuntimeError as error:
            return f"the workers are gone ({error}); run the same command again"
        return None


def probe_output(output: str) -> None:
    """Write a small file below the output root and delete it.

    Damaged, Refused: it cannot be written, so nothing can.
    """
    file = place(output) / ".tierscale-probe"
    write_bytes(file, bytes(PROBE))
    file.unlink(missing_ok=True)
