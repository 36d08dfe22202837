"""Calls to workers, and the record of which actor is at work on which."""

from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field, fields
from typing import Any

from tierscale.pipeline.geometry.grid import Span
from tierscale.pipeline.run.workers.pool import ANY, Others, Task


@dataclass(slots=True, eq=False)
class Call:
    """A task for a worker.

    kind: of the workers it is for. as_reference: whether the large part of its result stays in the
    object store. others: who may do it. tries: times it was started, copies on a second actor
    included.
    """

    task: Task[Any]
    kind: str
    as_reference: bool
    others: Others = ANY
    future: Future[Any] = field(default_factory=Future)
    tries: int = 0

    def settle(self, result: Any = None, error: Exception | None = None) -> None:
        """Set the future's result or error, unless a copy of the call has done so before."""
        if self.future.done():
            return
        if error is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(result)

    @property
    def name(self) -> str:
        """The kind of task, by which durations are compared."""
        return type(self.task).__name__

    def __str__(self) -> str:
        """The task, with the fields that locate its work: paths, shards, rows."""
        known = fields(self.task)  # type: ignore[arg-type]
        values = [getattr(self.task, one.name) for one in known if one.name != "seen"]
        shown = [repr(value) for value in values if isinstance(value, str | int | tuple | Span)]
        return f"{self.name}({', '.join(shown)})"


@dataclass(slots=True)
class CallInFlight:
    """A call that an actor was given.

    result: reference of the large result that stays in the object store, or None. began: when the
    actor could start it, by the monotonic clock; None while it waits behind another call.
    """

    call: Call
    kind: str
    actor: Any
    result: Any
    began: float | None


class InFlight:
    """All calls in flight, by the object reference that becomes ready when they end."""

    def __init__(self) -> None:
        self._entries: dict[Any, CallInFlight] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[CallInFlight]:
        """The entries as they are now; the record may change meanwhile."""
        return iter(list(self._entries.values()))

    def __contains__(self, reference: Any) -> bool:
        return reference in self._entries

    @property
    def references(self) -> list[Any]:
        """What Ray is to be asked about."""
        return list(self._entries)

    def add(self, reference: Any, entry: CallInFlight) -> None:
        """Record that an actor was given a call."""
        self._entries[reference] = entry

    def end(self, reference: Any, now: float) -> CallInFlight:
        """Remove a call that ended; what waited behind it on its actor begins now."""
        ended = self._entries.pop(reference)
        for other in self._entries.values():
            if other.actor == ended.actor:
                other.began = now
        return ended

    def remove_actor(self, actor: Any) -> list[CallInFlight]:
        """Remove and return the calls of an actor that died."""
        removed = {ref: entry for ref, entry in self._entries.items() if entry.actor == actor}
        for reference in removed:
            del self._entries[reference]
        return list(removed.values())

    def of_actor(self, actor: Any) -> list[CallInFlight]:
        """The calls that an actor was given."""
        return [entry for entry in self._entries.values() if entry.actor == actor]

    def copies(self, call: Call) -> list[CallInFlight]:
        """Everywhere that one call is in flight."""
        return [entry for entry in self._entries.values() if entry.call is call]
