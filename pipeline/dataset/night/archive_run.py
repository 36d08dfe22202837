"""The enlarging of an archive by its ledger, until nothing is pending or the window closes."""

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import islice

from tierscale.pipeline.dataset.night.ledger import Entry, Ledger
from tierscale.pipeline.dataset.night.reach import (
    LOOKS,
    OutputWatch,
    nearest_folder,
    out_of_reach,
)
from tierscale.pipeline.dataset.night.task import ArchiveTask
from tierscale.pipeline.dataset.output_paths import fold, folds_case
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
from tierscale.pipeline.dataset.scan import content_sha256
from tierscale.pipeline.errors import Damaged, Interrupted, Refused, Unsettled
from tierscale.pipeline.plan.plan import Plan
from tierscale.pipeline.run.job import Controls, ImageJob
from tierscale.pipeline.run.prescan import Progress
from tierscale.pipeline.run.workers.pool import Pool
from tierscale.pipeline.run.workers.prescan_tasks import CheckReady
from tierscale.pipeline.storage.atomic import write_bytes
from tierscale.pipeline.storage.path_policy import check_source, output_below, output_outside
from tierscale.pipeline.storage.paths import Place, place, readable

# Bytes of the file that tells whether anything can be written at all.
PROBE = 1 << 16


class ArchiveRun:
    """The pending images of a ledger, several at a time, so that small ones keep all workers busy.

    stop: set when the run is over, for whatever reason. report: called with a line on each image
    that fails. problems: sentences on what is wrong beside single images; the last one may have
    ended the run. unsettled: number of images that were still being written.
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
        self.problems: list[str] = []
        self.unsettled = 0
        # Whether nothing can be enlarged any more, and folders of which nothing can be read.
        self._over = False
        self._lost: set[str] = set()
        self._output_of = task.output_paths().of
        self._entries: dict[str, Entry] = {}
        self._plans: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
        outputs = (output for _, output in ledger.done_outputs())
        below = (output for output in outputs if output.startswith(f"{task.output}/"))
        self._watch = OutputWatch(task.output, islice(below, LOOKS))
        self._doubles = self._find_doubles()

    def _find_doubles(self) -> dict[str, str]:
        """Sources whose output another source has too, and that one.

        So it is where names in the archive differ in a way that the disk of the outputs passes
        over.
        """
        if "://" in self.task.output or not folds_case(self.task.output):
            return {}
        return self.ledger.doubles(lambda source: fold(self._output_of(source)))

    def work(self, night: str, until: float, progress: Progress) -> None:
        """Enlarge image after image until none is pending or the ledger's clock shows `until`.

        What is under way then is left as it is; a later run resumes it. What an earlier run may
        have died of goes last, one at a time, so that no other image is blamed for it.
        """
        total, done = self.ledger.counts(night)["left"], 0
        progress("images", 0, total)
        self.stop.wait(self.task.settling.pause)

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
            self._entries[entry.source] = entry
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
        if source in self._doubles:
            raise Refused(
                f"{source}: its output {output} is that of {self._doubles[source]} too, because"
                " its disk takes upper and lower case for one; rename one of the two"
            )
        if self._is_moving(source):
            raise Unsettled(f"{source} is still being written; it waits for the next night")

        def on_plan(plan: Plan) -> None:
            self._watch.note(output)
            self._plans.put((job.key, plan.digest))

        image = enlarge(job.image, self.pool, Controls(stop=self.stop, on_plan=on_plan))
        if image.source_sha256 is not None:
            return image
        try:
            return replace(image, source_sha256=content_sha256(source, self._check_stop))
        except Interrupted:  # the image is done; without a checksum the next doubt enlarges it anew
            return image

    def _is_moving(self, source: str) -> bool:
        listed, now = self._entries[source].listed, self.ledger.clock()
        return self.task.settling.moves(listed, self.task.archive, now)

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
        self._end_without_outputs()
        match outcome:
            case Enlarged():
                self._settle_success(source, outcome)
            case NotEnlarged(cause=Cause.INTERRUPTED):
                self.ledger.release(source)
            case NotEnlarged(cause=Cause.HELD):
                self.ledger.release(source, "failed", outcome.error)
            case NotEnlarged(cause=Cause.UNSETTLED):
                self._wait_for_next_look(source)
            case _:
                self._settle_failure(source, outcome)
        del self._entries[source]

    def _settle_success(self, source: str, outcome: Enlarged) -> None:
        if self._over:  # where it was written is not certain
            self.ledger.release(source)
            return
        result = ImageResult.from_summary(outcome.summary)
        self.ledger.record_done(source, result, outcome.source_sha256)

    def _wait_for_next_look(self, source: str) -> None:
        self.unsettled += 1
        self.ledger.release(source)
        self.ledger.hold_back([source])

    def _settle_failure(self, source: str, outcome: NotEnlarged) -> None:
        """Blame a failure on its image, unless something else is at fault that others share."""
        if not self._over:
            self._end_where_nothing_goes(outcome)
        folder = None if self._over else self._lost_folder(source, outcome)
        if folder is not None and folder not in self._lost:
            self._give_up(folder, outcome)
        if self._over or folder is not None:
            self.ledger.release(source)
            self.ledger.hold_back([source])
        elif self._is_moving(source):
            self._wait_for_next_look(source)
        else:
            text = outcome.error
            self.ledger.record_failure(source, text)
            self.report(text if source in text else f"{source}: {text}")

    def _end(self, why: str) -> None:
        """End the run: no image is begun any more, and none is blamed."""
        self.problems.append(why)
        self._over = True
        self.stop.set()

    def _end_without_outputs(self) -> None:
        """End the run if the disk of the outputs is not mounted any more."""
        if not self._over and self._watch.gone():
            self._end(
                f"the disk of {self.task.output} is not mounted any more: none of the outputs that"
                " are known lies there; mount it, then run the same command again"
            )

    def _end_where_nothing_goes(self, outcome: NotEnlarged) -> None:
        """End the run where storage takes nothing, or workers are gone."""
        try:
            if outcome.cause is Cause.DISK_FULL:
                raise Damaged(outcome.error)
            probe_output(self.task.output)
            if outcome.cause is Cause.UNEXPECTED:
                self.pool.submit(CheckReady())
        except (Damaged, Refused) as error:
            self._end(str(error))
        except RuntimeError as error:
            self._end(f"the workers are gone ({error}); run the same command again")

    def _lost_folder(self, source: str, outcome: NotEnlarged) -> str | None:
        """The folder that is out of reach with all its sources, if that is why one failed."""
        if outcome.cause is not Cause.SOURCE and readable(source):
            return None
        return out_of_reach(self.ledger, self.task.archive, source)

    def _give_up(self, folder: str, outcome: NotEnlarged) -> None:
        """Leave what lies in a folder for another night; the whole archive ends the run."""
        self._lost.add(folder)
        why = outcome.error.split("; ")[0]
        advice = "object store and its credentials" if "://" in folder else "disk"
        text = (
            f"{folder} is out of reach: none of its images that were tried can be read ({why});"
            f" check its {advice}, then run the same command again, no image is blamed"
        )
        if folder == self.task.archive:
            self._end(f"the archive {text}")
            return
        self.problems.append(text)
        self.ledger.hold_back(
            one for one in self.ledger.pending_sources() if one.startswith(f"{folder}/")
        )


def probe_output(output: str) -> None:
    """Write a small file below the output root, or in the folder that it would be made in.

    It is deleted again. Damaged, Refused: it cannot be written, so nothing can.
    """
    folder: Place = place(output) if "://" in output else nearest_folder(output)
    file = folder / ".tierscale-probe"
    write_bytes(file, bytes(PROBE))
    file.unlink(missing_ok=True)
