"""Calls to workers: waiting, in an actor's hand, late, ended."""

import os
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from tierscale.pipeline.geometry.grid import Span
from tierscale.pipeline.run.shards import Quarantined

# A call is late after so many times the longest one of its kind, and never before LATE_SECONDS.
TIMES = 4
LATE_SECONDS = float(os.environ.get("TIERSCALE_LATE_SECONDS", "60"))
# While no call of its kind has ended: networks are loaded, disks wake up.
FIRST_SECONDS = 15 * LATE_SECONDS
# Most that decoding one whole file may take; an image that keeps its decoder busy for longer is
# given up.
DECODE_SECONDS = float(os.environ.get("TIERSCALE_DECODE_SECONDS", "3600"))


@dataclass(slots=True, eq=False)
class Call:
    """A method of a worker with its arguments. tries: times it was begun, copies of a late one
    among them.
    """

    method: str
    args: tuple[Any, ...]
    kind: str
    keep: bool
    future: Future = field(default_factory=Future)
    tries: int = 0

    def settle(self, result: Any = None, error: Exception | None = None) -> None:
        """Tell the one who waits how the call ended, unless a copy of it did so before."""
        if self.future.done():
            return
        if error is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(result)

    def __str__(self) -> str:
        """The method, with those of its arguments that say where it is at work: paths, shards,
        rows.
        """
        return f"{self.method}({', '.join(repr(value) for value in self.args if isinstance(value, str | int | tuple | Span))})"

    def hung(self, seconds: float) -> Quarantined:
        """What to tell the one who waits for a call that never ends. seconds: given to it the last
        time.
        """
        return Quarantined(
            f"{self} was begun {self.tries} times and did not end, the last time within"
            f" {seconds:.0f} s; look whether its image can be read and its output be written, or"
            f" let slow workers take longer than TIERSCALE_LATE_SECONDS={LATE_SECONDS:g}, and give"
            " the same command again, what is done is kept"
        )


@dataclass(slots=True)
class InHand:
    """A call in an actor's hand. kept: the large result that stays where it is. began: when the
    actor could begin it, by the monotonic clock; None while it waits behind another.
    """

    call: Call
    kind: str
    actor: Any
    kept: Any
    began: float | None


class Patience:
    """How long calls may take before they are late, in seconds; learned from those that ended."""

    def __init__(self) -> None:
        self._longest: dict[str, float] = {}

    def ended(self, method: str, seconds: float) -> None:
        """A call has ended well."""
        self._longest[method] = max(seconds, self._longest.get(method, 0.0))

    def late(self, flight: InHand, now: float) -> bool:
        """Whether a call has been at work for too long in this actor's hand."""
        return flight.began is not None and now - flight.began > self.limit(
            flight.call.method, flight.call.tries
        )

    def limit(self, method: str, tries: int = 1) -> float:
        """Seconds after which a call is late that was begun so many times: each time twice as many,
        so that a fresh worker can load its networks, and a disk that stands still for minutes
        spoils no image.
        """
        if method == "ingest":  # its length is that of the file, which no other call tells
            return DECODE_SECONDS
        if method not in self._longest:
            return FIRST_SECONDS
        once = max(LATE_SECONDS, TIMES * self._longest[method])
        return max(once, min(FIRST_SECONDS, once * 2 ** (tries - 1)))
