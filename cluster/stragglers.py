"""When a call is late, and what is said of one that never ends."""

import os

from tierscale.cluster.in_flight import Call, CallInFlight
from tierscale.pipeline.errors import Damaged
from tierscale.pipeline.run.shards.queue import Quarantined
from tierscale.pipeline.run.workers.prescan_tasks import IngestSource

# A call is late after so many times the longest one of its kind of task, and not before
# LATE_SECONDS.
TIMES = 4
LATE_SECONDS = float(os.environ.get("TIERSCALE_LATE_SECONDS", "60"))
# While no task of its kind has ended: networks are loaded, disks spin up.
FIRST_SECONDS = 15 * LATE_SECONDS
# Limit for decoding one whole file.
DECODE_SECONDS = float(os.environ.get("TIERSCALE_DECODE_SECONDS", "3600"))


class StragglerTimer:
    """How long calls may take before they are late, in seconds; learned from those that ended."""

    def __init__(self) -> None:
        self._longest: dict[str, float] = {}

    def record(self, name: str, seconds: float) -> None:
        """Learn from a call that ended well."""
        self._longest[name] = max(seconds, self._longest.get(name, 0.0))

    def is_late(self, entry: CallInFlight, now: float) -> bool:
        """Whether a call has been at work on this actor for too long."""
        limit = self.limit(entry.call)
        return entry.began is not None and now - entry.began > limit

    def limit(self, call: Call) -> float:
        """Seconds after which a call is late.

        Each try has twice as long as the one before, so that a new worker can load its networks,
        and a disk that stalls for minutes fails no image.
        """
        if isinstance(call.task, IngestSource):
            # It takes as long as its file is large, which no other call predicts.
            return DECODE_SECONDS
        if call.name not in self._longest:
            return FIRST_SECONDS
        once = max(LATE_SECONDS, TIMES * self._longest[call.name])
        return max(once, min(FIRST_SECONDS, once * 2 ** (call.tries - 1)))

    def hung(self, call: Call) -> Quarantined:
        """The error of a call that never ended on any worker."""
        seconds = self.limit(call)
        return Quarantined(
            f"{call} was started {call.tries} times and did not end, the last time within"
            f" {seconds:.0f} s; check that its image can be read and its output be written, or"
            f" allow slow workers more than TIERSCALE_LATE_SECONDS={LATE_SECONDS:g}, then run the"
            " same command again: finished shards are kept"
        )


def undecodable(task: IngestSource, seconds: float) -> Damaged:
    """The error of a file whose decoding took too long."""
    return Damaged(
        f"{task.uri}: decoding took more than {seconds:.0f} s and was given up; convert the"
        " file to a tiled TIFF or to zarr"
    )
