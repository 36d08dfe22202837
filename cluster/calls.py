"""Calls to workers: waiting, in an actor's hand, late, ended."""

import os
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

# A call is late after so many times the longest one of its kind, and never before LATE_SECONDS.
TIMES = 4
LATE_SECONDS = float(os.environ.get("TIERSCALE_LATE_SECONDS", "60"))
# While no call of its kind has ended: networks are loaded, disks wake up.
FIRST_SECONDS = 15 * LATE_SECONDS
# Most that decoding one whole file may take; an image that keeps its decoder busy for longer is given up.
DECODE_SECONDS = float(os.environ.get("TIERSCALE_DECODE_SECONDS", "3600"))


@dataclass(slots=True, eq=False)
class Call:
    """A method of a worker with its arguments. tries: times it was begun. copied: whether a late one was begun elsewhere too."""

    method: str
    args: tuple[Any, ...]
    kind: str
    keep: bool
    future: Future = field(default_factory=Future)
    tries: int = 0
    copied: bool = False

    def settle(self, result: Any = None, error: Exception | None = None) -> None:
        """Tell the one who waits how the call ended, unless a copy of it did so before."""
        if self.future.done():
            return
        if error is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(result)


@dataclass(slots=True)
class InHand:
    """A call in an actor's hand. kept: the large result that stays where it is. began: when the actor could begin it, by the
    monotonic clock; None while it waits behind another."""

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

    def limit(self, method: str) -> float:
        """Seconds after which a call is late."""
        if method == "ingest":  # its length is that of the file, which no other call tells
            return DECODE_SECONDS
        return max(LATE_SECONDS, TIMES * self._longest[method]) if method in self._longest else FIRST_SECONDS
