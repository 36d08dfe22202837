"""The work of one night: image after image from the ledger, several at a time, until the window
closes.
"""

import json
import threading
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from typing import Any

from tierscale.jobs.cli.ending import say
from tierscale.jobs.cli.progress import Bar
from tierscale.pipeline.dataset.ledger import Entry, Ledger
from tierscale.pipeline.dataset.scan import content_sha256, output_of
from tierscale.pipeline.errors import Damaged, Full, Held, Interrupted, Refused
from tierscale.pipeline.plan.plan import Options
from tierscale.pipeline.run.pool import Pool
from tierscale.pipeline.run.run import Request, Run
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

    def output_of(self, source: str) -> str:
        """Where the enlarged image of a source goes."""
        return output_of(source, self.archive, self.output)


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
        self._planned: set[str] = set()

    def work(self, night: str, until: float, bar: Bar) -> None:
        """Take image after image until none waits or the clock shows `until`; what is under way
        then is left as it is, to go on with.
        """
        total, done = self.ledger.counts(night)["left"], 0
        bar("images", 0, total)
        width = self.pool.width + 1
        flying: dict[Future, tuple[Entry, Run]] = {}
        with ThreadPoolExecutor(width, thread_name_prefix="image") as drivers:
            try:
                while True:
                    if self.ledger.clock() >= until:
                        self.stop.set()
                    while (
                        len(flying) < width
                        and not self.stop.is_set()
                        and (entry := self._take(night, not flying)) is not None
                    ):
                        run = Run(self._request(entry), self.pool, stop=self.stop)
                        flying[drivers.submit(self._enlarge, run)] = (entry, run)
                    if not flying:
                        return
                    ended = wait(flying, timeout=1, return_when=FIRST_COMPLETED).done
                    self._note_plans(flying.values())
                    for future in ended:
                        self._settle(flying.pop(future)[0], future)
                        done += 1
                        bar("images", done, total)
            except (
                BaseException
            ):  # without its ledger the night is over, and what is under way drains
                self.stop.set()
                raise

    def _note_plans(self, flying: Iterable[tuple[Entry, Run]]) -> None:
        """Write down plans as soon as they are made, so that an output is known as ours also after
        this process is killed.
        """
        for entry, run in flying:
            if run.plan is not None and entry.source not in self._planned:
                self.ledger.planned(entry.source, run.plan.digest)
                self._planned.add(entry.source)

    def _take(self, night: str, alone: bool) -> Entry | None:
        """The next image to begin, or None for now. alone: nothing else is at work, as it must be
        for what a nightly may have died of.

        Those go last: once one of them is at work, nothing else waits that could join it.
        """
        entry = self.ledger.take(night, self.job.wish, self.job.output_of)
        return (
            self.ledger.take(night, self.job.wish, self.job.output_of, suspects=True)
            if entry is None and alone
            else entry
        )

    def _enlarge(self, run: Run) -> tuple[dict[str, Any], str | None]:
        """One image from start to end: its summary, and the checksum of its source."""
        check_source(run.request.source, (self.job.archive, *self.job.source_roots))
        output_outside(output_below(run.request.output, self.job.output), self.job.archive)
        summary = run.carry_out()
        assert run.plan is not None
        known = run.plan.source["identity"].get("sha256")
        try:
            return summary, known or content_sha256(run.request.source, self._go_on)
        except Interrupted:  # the image is done; without a checksum the next doubt does it again
            return summary, None

    def _go_on(self) -> None:
        """Raise Interrupted once the night is over."""
        if self.stop.is_set():
            raise Interrupted

    def _request(self, entry: Entry) -> Request:
        # Only what we are known to have made is made anew where the source changed.
        ours = self.job.overwrite or entry.plan is not None
        return Request(
            entry.source,
            entry.output,
            self.job.image,
            self.job.max_memory,
            overwrite=ours,
            renew=True,
        )

    def _settle(self, entry: Entry, future: Future) -> None:
        """Write down how an attempt ended."""
        try:
            summary, sha256 = future.result()
        except Interrupted:
            self.ledger.left(entry.source)
        except Held as error:
            self.ledger.left(entry.source, "failed", str(error))
        except (
            Exception
        ) as error:  # one image's fault must never stop the others; its row says what happened
            self._failed(entry, error)
        else:
            self.ledger.done(entry.source, summary, sha256)

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
            self.ledger.failed(entry.source, text)
            say(text if entry.source in text else f"{entry.source}: {text}")
        else:
            self.ledger.left(entry.source)
            self.trouble = self.trouble or trouble
            self.stop.set()

    def _trouble(self, expected: bool) -> str | None:
        """Why nothing can be enlarged at all, or None: a place that takes nothing any more, or
        workers that are gone.
        """
        try:
            probe(self.job.output)
            if not expected:
                self.pool.submit("ready")
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
