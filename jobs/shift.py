"""The work of one night: image after image from the ledger, several at a time, until the window
closes.
"""

import json
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from tierscale.jobs.cli.ending import say
from tierscale.jobs.cli.progress import Bar
from tierscale.pipeline.dataset.ledger import Entry, Ledger
from tierscale.pipeline.dataset.output_paths import OutputPaths
from tierscale.pipeline.dataset.results import ImageResult
from tierscale.pipeline.dataset.scan import content_sha256
from tierscale.pipeline.errors import Damaged, Full, Held, Interrupted, Refused
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.plan.plan import Plan
from tierscale.pipeline.run.job import Controls, ImageJob
from tierscale.pipeline.run.run import upscale_image
from tierscale.pipeline.run.workers.bounded import threaded_map
from tierscale.pipeline.run.workers.pool import Pool
from tierscale.pipeline.run.workers.prescan_tasks import CheckReady
from tierscale.pipeline.storage.atomic import write_bytes
from tierscale.pipeline.storage.path_policy import check_source, output_below, output_outside
from tierscale.pipeline.storage.paths import normalize_root, place

# Bytes of the file that tells whether anything can be written at all.
PROBE = 1 << 16


@dataclass(frozen=True, slots=True)
class NightlyOptions:
    """What a night is to do. archive: the tree of sources; output: where their enlarged images go,
    in a tree of the same shape.

    until: HH:MM, local time. image: how every image is enlarged. ray: "local", "none" or an
    address. max_memory: bytes. overwrite: do again what was enlarged with other options.
    retry_parked: try again what was given up. source_roots: where links in the archive may lead
    beside it. Places are kept as of places.rooted.
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

    def __post_init__(self) -> None:
        object.__setattr__(self, "archive", normalize_root(self.archive))
        object.__setattr__(self, "output", normalize_root(self.output))
        object.__setattr__(self, "source_roots", tuple(map(normalize_root, self.source_roots)))

    @property
    def wish(self) -> str:
        """The image options as text: two nights that agree in it would make the same."""
        return json.dumps(asdict(self.image), sort_keys=True, default=str)

    @property
    def outputs(self) -> OutputPaths:
        """Where enlarged images go."""
        return OutputPaths(self.archive, self.output)


class AgainAndAgain:
    """An iterator that begins anew whenever it is asked after its end."""

    def __init__(self, begin: Callable[[], Iterator[Entry]]) -> None:
        self._begin, self._now = begin, begin()

    def __iter__(self) -> "AgainAndAgain":
        return self

    def __next__(self) -> Entry:
        try:
            return next(self._now)
        except StopIteration:
            self._now = self._begin()
            raise


def _raise(error: Exception) -> tuple[dict[str, Any], str | None]:
    raise error


class Shift:
    """The images of one night, several at a time, so that small ones keep all workers busy too.

    stop: set when the night is over, by whatever. trouble: why nothing can be enlarged any more, or
    None.
    """

    def __init__(
        self, job: NightlyOptions, ledger: Ledger, pool: Pool, stop: threading.Event
    ) -> None:
        self.job, self.ledger, self.pool, self.stop = job, ledger, pool, stop
        self.trouble: str | None = None
        self._plans: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
        self._output_of = job.outputs.of

    def work(self, night: str, until: float, bar: Bar) -> None:
        """Take image after image until none waits or the clock shows `until`; what is under way
        then is left as it is, to go on with.
        """
        total, done = self.ledger.counts(night)["left"], 0
        bar("images", 0, total)

        def entries() -> Iterator[Entry]:
            while (entry := self._take(night, under_way[0] == 0)) is not None:
                under_way[0] += 1
                yield entry

        def tick() -> None:
            if self.ledger.clock() >= until:
                self.stop.set()
            self._note_plans()

        # A count that the generator above shares with the loop below.
        under_way = [0]
        images = AgainAndAgain(entries)
        for entry, outcome in threaded_map(
            images, self._attempt, self.pool.width + 1, self.stop, tick
        ):
            under_way[0] -= 1
            self._note_plans()
            self._settle(entry, outcome)
            done += 1
            bar("images", done, total)

    def _attempt(self, entry: Entry) -> Callable[[], tuple[dict[str, Any], str | None]]:
        """What gives the summary of an image and the checksum of its source, or raises."""
        try:
            made = self._enlarge(entry)
        except Exception as error:  # settled by the thread that owns the ledger
            return partial(_raise, error)
        return lambda: made

    def _note_plans(self) -> None:
        """Write down plans as soon as they are made, so that an output is known as ours also after
        this process is killed.
        """
        while True:
            try:
                source, digest = self._plans.get_nowait()
            except queue.Empty:
                return
            self.ledger.record_plan(source, digest)

    def _take(self, night: str, alone: bool) -> Entry | None:
        """The next image to begin, or None for now. alone: nothing else is at work, as it must be
        for what a nightly may have died of.

        Those go last: once one of them is at work, nothing else waits that could join it.
        """
        entry = self.ledger.claim(night, self.job.wish, self._output_of)
        return (
            self.ledger.claim(night, self.job.wish, self._output_of, suspects=True)
            if entry is None and alone
            else entry
        )

    def _enlarge(self, entry: Entry) -> tuple[dict[str, Any], str | None]:
        """One image from start to end: its summary, and the checksum of its source."""
        job, known = self._request(entry), dict[str, str | int]()
        check_source(job.source, (self.job.archive, *self.job.source_roots))
        output_outside(output_below(job.output, self.job.output), self.job.archive)

        def on_plan(plan: Plan) -> None:
            self._plans.put((entry.source, plan.digest))
            known.update(plan.source.identity)

        summary = upscale_image(job, self.pool, Controls(stop=self.stop, on_plan=on_plan)).to_json()
        try:
            digest = known.get("sha256") or content_sha256(job.source, self._go_on)
            return summary, str(digest)
        except Interrupted:  # the image is done; without a checksum the next doubt does it again
            return summary, None

    def _go_on(self) -> None:
        """Raise Interrupted once the night is over."""
        if self.stop.is_set():
            raise Interrupted

    def _request(self, entry: Entry) -> ImageJob:
        # Only what we are known to have made is made anew where the source changed.
        ours = self.job.overwrite or entry.plan is not None
        return ImageJob(
            entry.source,
            entry.output,
            self.job.image,
            self.job.max_memory,
            overwrite=ours,
            renew=True,
        )

    def _settle(
        self, entry: Entry, outcome: Callable[[], tuple[dict[str, Any], str | None]]
    ) -> None:
        """Write down how an attempt ended."""
        try:
            summary, sha256 = outcome()
        except Interrupted:
            self.ledger.release(entry.source)
        except Held as error:
            self.ledger.release(entry.source, "failed", str(error))
        except (
            Exception
        ) as error:  # one image's fault must never stop the others; its row says what happened
            self._failed(entry, error)
        else:
            self.ledger.record_done(entry.source, ImageResult.from_summary(summary), sha256)

    def _failed(self, entry: Entry, error: Exception) -> None:
        """Lay a failure at the image's door, unless nothing can be enlarged any more: then the
        night ends.
        """
        expected = isinstance(error, Refused | Damaged)
        text = (
            str(error)
            if expected
            else f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        )
        trouble = text if isinstance(error, Full) else self._trouble(expected)
        if trouble is None:
            self.ledger.record_failure(entry.source, text)
            say(text if entry.source in text else f"{entry.source}: {text}")
        else:
            self.ledger.release(entry.source)
            self.trouble = self.trouble or trouble
            self.stop.set()

    def _trouble(self, expected: bool) -> str | None:
        """Why nothing can be enlarged at all, or None: a place that takes nothing any more, or
        workers that are gone.
        """
        try:
            probe(self.job.output)
            if not expected:
                self.pool.submit(CheckReady())
        except (Damaged, Refused) as error:
            return str(error)
        except RuntimeError as error:
            return f"the workers are gone ({error}); run the same command again"
        return None


def probe(output: str) -> None:
    """Write a small file below the output root and take it away. Damaged, Refused: it cannot be
    written, so nothing can.
    """
    file = place(output) / ".tierscale-probe"
    write_bytes(file, bytes(PROBE))
    file.unlink(missing_ok=True)
