"""The one runner of many images: a queue of jobs in, an outcome for each out."""

import threading
from collections.abc import Callable, Generator, Hashable, Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from enum import Enum
from typing import Generic, Literal, TypeAlias, TypeVar

from tierscale.pipeline.errors import (
    Damaged,
    DiskFull,
    Held,
    Interrupted,
    Refused,
    Unreachable,
    Unsettled,
)
from tierscale.pipeline.output.summary import Summary
from tierscale.pipeline.plan.plan import Plan
from tierscale.pipeline.run.job import Controls, ImageJob
from tierscale.pipeline.run.run import upscale_image
from tierscale.pipeline.run.shards.queue import Quarantined
from tierscale.pipeline.run.workers.bounded import threaded_map
from tierscale.pipeline.run.workers.pool import Pool

Key = TypeVar("Key", bound=Hashable)

# Characters of an unexpected error that are kept.
LONGEST = 300


@dataclass(frozen=True, slots=True)
class QueuedJob(Generic[Key]):
    """One image of a queue. key: by which the queue knows it."""

    key: Key
    image: ImageJob


class Cause(Enum):
    """Why an image failed, as far as it matters to the images after it."""

    # The image itself, or its options.
    IMAGE = "image"
    # The disk or the store of the source fails.
    SOURCE = "source"
    # The source is still being written.
    UNSETTLED = "unsettled"
    # Another run is writing its output.
    HELD = "held"
    # The disk that takes the results is full.
    DISK_FULL = "disk full"
    # The job was stopped.
    INTERRUPTED = "interrupted"
    # Anything else: a fault of ours, or workers that are gone.
    UNEXPECTED = "unexpected"


@dataclass(frozen=True, slots=True)
class Enlarged:
    """The outcome of an image that is enlarged.

    source_sha256: of the source's bytes, hex, where it is known.
    """

    summary: Summary
    source_sha256: str | None = None

    @property
    def status(self) -> Literal["done", "skipped"]:
        """Whether anything had to be done."""
        return "done" if self.summary.written else "skipped"


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
            case Unsettled():
                return NotEnlarged("left", str(error), Cause.UNSETTLED)
            case Unreachable():
                return NotEnlarged("failed", str(error), Cause.SOURCE)
            case DiskFull():
                return NotEnlarged("failed", str(error), Cause.DISK_FULL)
            case Quarantined():
                return NotEnlarged("quarantined", str(error), Cause.IMAGE)
            case Refused() | Damaged():
                return NotEnlarged("failed", str(error), Cause.IMAGE)
        text = f"{type(error).__name__}: {' '.join(str(error).split())[:LONGEST]}"
        return NotEnlarged("failed", text, Cause.UNEXPECTED)


Outcome: TypeAlias = Enlarged | NotEnlarged


def run_jobs(
    queue: Iterable[QueuedJob[Key]],
    perform: Callable[[QueuedJob[Key]], Enlarged],
    width: int,
    stop: threading.Event,
    tick: Callable[[], None] | None = None,
) -> Generator[tuple[Key, Outcome], None, None]:
    """Key and outcome of each image of a queue, as they end; `width` of them under way in threads.

    perform: enlarges one image; what it raises is its outcome, and never stops the others. stop:
    once it is set no image is begun, and those under way end by themselves. tick: called before
    images are begun and about every second. A job leaves the queue only when it is begun.
    """

    def attempt(job: QueuedJob[Key]) -> Outcome:
        try:
            return perform(job)
        except Exception as error:
            return NotEnlarged.of(error)

    with closing(threaded_map(queue, attempt, width, stop, tick)) as outcomes:
        for job, outcome in outcomes:
            yield job.key, outcome


def enlarge(job: ImageJob, pool: Pool, controls: Controls) -> Enlarged:
    """Enlarge an image. Raises Refused, Damaged, Interrupted."""
    checksums: list[str] = []

    def on_plan(plan: Plan) -> None:
        controls.on_plan(plan)
        checksum = plan.source.identity.get("sha256")
        if isinstance(checksum, str):
            checksums.append(checksum)

    summary = upscale_image(job, pool, replace(controls, on_plan=on_plan))
    return Enlarged(summary, checksums[0] if checksums else None)
