"""The one runner of many images: a queue of jobs in, an outcome for each out."""

import threading
from collections.abc import Callable, Generator, Hashable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from enum import Enum
from typing import Any, Generic, Literal, TypeAlias, TypeVar

from tierscale.pipeline.errors import Damaged, Full, Held, Interrupted, Refused
from tierscale.pipeline.plan.plan import Options
from tierscale.pipeline.run.bounded import threaded_map
from tierscale.pipeline.run.run import Request, Run
from tierscale.pipeline.run.tasks import Quarantined

Key = TypeVar("Key", bound=Hashable)

# Characters of an unexpected error that are kept.
LONGEST = 300


@dataclass(frozen=True, slots=True)
class ImageJob(Generic[Key]):
    """One image of a queue. key: by which the queue knows it; the rest is as of Request."""

    key: Key
    source: str
    output: str
    options: Options
    max_memory: int | None = None
    overwrite: bool = False
    renew: bool = False

    def request(self) -> Request:
        """The job as a run takes it."""
        return Request(
            self.source,
            self.output,
            self.options,
            self.max_memory,
            overwrite=self.overwrite,
            renew=self.renew,
        )


class Cause(Enum):
    """Why an image failed, as far as it matters to the images after it."""

    # The image itself, or its options.
    IMAGE = "image"
    # Another run is writing its output.
    HELD = "held"
    # The disk that takes the results is full.
    FULL = "full"
    # The job was stopped.
    INTERRUPTED = "interrupted"
    # Anything else: a fault of ours, or workers that are gone.
    UNEXPECTED = "unexpected"


@dataclass(frozen=True, slots=True)
class Enlarged:
    """The outcome of an image that is enlarged.

    summary: as of Run. written: shards that this run wrote, 0 if all were there. source_sha256: of
    the source's bytes, hex, where it is known.
    """

    summary: Mapping[str, Any]
    written: int
    source_sha256: str | None = None

    @property
    def status(self) -> Literal["done", "skipped"]:
        """Whether anything had to be done."""
        return "done" if self.written else "skipped"


@dataclass(frozen=True, slots=True)
class NotEnlarged:
    """The outcome of an image that is not. error: one sentence, or a few words on a fault of ours.

    status: "left" where the next run may find it as it is: the image is not to blame.
    """

    status: Literal["failed", "quarantined", "interrupted", "left"]
    error: str
    cause: Cause

    @staticmethod
    def of(error: Exception) -> "NotEnlarged":
        """The outcome of an image whose run raised an exception."""
        match error:
            case Interrupted():
                text = "interrupted; to resume, run the same command"
                return NotEnlarged("interrupted", text, Cause.INTERRUPTED)
            case Held():
                return NotEnlarged("left", str(error), Cause.HELD)
            case Full():
                return NotEnlarged("failed", str(error), Cause.FULL)
            case Quarantined():
                return NotEnlarged("quarantined", str(error), Cause.IMAGE)
            case Refused() | Damaged():
                return NotEnlarged("failed", str(error), Cause.IMAGE)
        text = f"{type(error).__name__}: {' '.join(str(error).split())[:LONGEST]}"
        return NotEnlarged("failed", text, Cause.UNEXPECTED)


Outcome: TypeAlias = Enlarged | NotEnlarged


def run_jobs(
    queue: Iterable[ImageJob[Key]],
    perform: Callable[[ImageJob[Key]], Enlarged],
    width: int,
    stop: threading.Event,
    tick: Callable[[], None] | None = None,
) -> Generator[tuple[Key, Outcome], None, None]:
    """Key and outcome of each image of a queue, as they end; `width` of them under way in threads.

    perform: enlarges one image; what it raises is its outcome, and never stops the others. stop:
    once it is set no image is begun, and those under way end by themselves. tick: called before
    images are begun and about every second. A job leaves the queue only when it is begun.
    """

    def attempt(job: ImageJob[Key]) -> Outcome:
        try:
            return perform(job)
        except Exception as error:
            return NotEnlarged.of(error)

    with closing(threaded_map(queue, attempt, width, stop, tick)) as outcomes:
        for job, outcome in outcomes:
            yield job.key, outcome


def enlarge(run: Run) -> Enlarged:
    """Carry out a run. Raises Refused, Damaged, Interrupted."""
    summary = run.carry_out()
    identity = run.plan.source["identity"] if run.plan else {}
    return Enlarged(summary, run.written, identity.get("sha256"))
