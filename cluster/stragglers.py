"""When a call is late, and what is said of one that never ends."""

import os

from tierscale.cluster.in_flight import Call, CallInFlight
from tierscale.pipeline.errors import Damaged
from tierscale.pipeline.run.tasks import Quarantined

# A call is late after so many times the longest one of its method, and never before LATE_SECONDS.
TIMES = 4
LATE_SECONDS = float(os.environ.get("TIERSCALE_LATE_SECONDS", "60"))
# While no call of its method has ended: networks are loaded, disks spin up.
FIRST_SECONDS = 15 * LATE_SECONDS
# Limit for decoding one whole file.
DECODE_SECONDS = float(os.environ.get("TIERSCALE_DECODE_SECONDS", "3600"))


class StragglerTimer:
    """How long calls may take before they are late, in seconds; learned from those that ended."""

    def __init__(self) -> None:
        self._longest: dict[str, float] = {}

    def record(self, method: str, seconds: float) -> None:
        """Learn from a call that ended well."""
        self._longest[method] = max(seconds, self._longest.get(method, 0.0))

    def is_late(self, entry: CallInFlight, now: float) -> bool:
        """Whether a call has been at work on this actor for too long."""
        limit = self.limit(entry.call.method, entry.call.tries)
        return entry.began is not None and now - entry.began > limit

    def limit(self, method: str, tries: int = 1) -> float:
        """Seconds after which a call is late that was started `tries` times.

        Each try has twice as long as the one before, so that a new worker can load its networks,
        and a disk that stalls for minutes fails no image.
        """
        if method == "ingest":  # takes as long as its file is large, which no other call predicts
            return DECODE_SECONDS
        if method not in self._longest:
            return FIRST_SECONDS
        once = max(LATE_SECONDS, TIMES * self._longest[method])
        return max(once, min(FIRST_SECONDS, once * 2 ** (tries - 1)))

    def hung(self, call: Call) -> Quarantined:
        """The error of a call that never ended on any worker."""
        seconds = self.limit(call.method, call.tries)
        return Quarantined(
            f"{call} was started {call.tries} times and did not end, the last time within"
            f" {seconds:.0f} s; check that its image can be read and its output be written, or"
            f" allow slow workers more than TIERSCALE_LATE_SECONDS={LATE_SECONDS:g}, then run the"
            " same command again: finished shards are kept"
        )


def undecodable(call: Call, seconds: float) -> Damaged:
    """The error of a file whose decoding took too long."""
    return Damaged(
        f"{call.args[0]}: decoding took more than {seconds:.0f} s and was given up; convert the"
        " file to a tiled TIFF or to zarr"
    )
