"""The loop that gives calls to actors, collects their results, and repeats what is lost or late."""

import logging
import queue
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

import ray
from ray.exceptions import (
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
)

from tierscale.cluster.actor_group import LOST, ActorGroup, starting_actors, take_error
from tierscale.cluster.in_flight import Call, CallInFlight, InFlight
from tierscale.cluster.metrics import Meter
from tierscale.cluster.objects import ObjectHandle
from tierscale.cluster.stragglers import StragglerTimer, undecodable
from tierscale.pipeline.run.workers.prescan_tasks import IngestSource

log = logging.getLogger(__name__)

# Seconds that work may wait while no actor of its kind is up, because its nodes were taken away.
NO_WORKER_SECONDS = 900
# Seconds between checks of whether the cluster has grown, of late calls, and reports of metrics.
GROW_SECONDS, WATCH_SECONDS, REPORT_SECONDS = 15, 0.25, 5
# Seconds to wait for a result before new calls are looked for.
WAIT_SECONDS = 0.02
# Times that one call is started before its error is handed on.
TRIES = 4


class Scheduler:
    """Gives calls to groups of actors. Every call is safe to repeat, and may run twice at a time.

    groups: actors by kind. timer: how long calls may take. All methods but put() belong to the one
    thread that calls turn().
    """

    def __init__(self, groups: Mapping[str, ActorGroup], meter: Meter | None = None) -> None:
        self.groups = groups
        self.timer = StragglerTimer()
        self.waiting: dict[str, deque[Call]] = {kind: deque() for kind in groups}
        self.in_flight = InFlight()
        self._meter = meter
        self._inbox: queue.SimpleQueue[Call | str | None] = queue.SimpleQueue()
        self._grown = self._reported = self._watched = time.monotonic()
        self._seen_up = dict.fromkeys(groups, self._grown)

    def put(self, call: Call | str | None) -> None:
        """Add a call from any thread, or the name of a worker to end; None only wakes the loop."""
        self._inbox.put(call)

    def turn(self) -> None:
        """Start what waits, collect what has ended, and check on what is late.

        RuntimeError: work waits, and no actor of its kind has been up for long.
        """
        # Calls of a dead actor wait to be started again: sleep only when there is nothing to do.
        self._receive(block=not self.in_flight and not any(self.waiting.values()))
        self._start_waiting()
        self._collect_ready()
        # Last: a call that ended while this process stood still is not late.
        self._check(time.monotonic())

    def fail_all(self, error: Exception) -> None:
        """Hand an error to everyone who still waits."""
        self._receive(block=False)
        queued = [call for calls in self.waiting.values() for call in calls]
        for call in [*(entry.call for entry in self.in_flight), *queued]:
            call.settle(error=error)

    def _receive(self, block: bool) -> None:
        """Move new calls to the queue of their kind."""
        while True:
            try:
                call = self._inbox.get(block=block)
            except queue.Empty:
                return
            block = False
            if call is None:
                return
            if isinstance(call, str):
                self._dismiss(call)
            else:
                self.waiting[call.kind].append(call)

    def _start_waiting(self) -> None:
        """Give waiting calls to free actors."""
        for kind, calls in self.waiting.items():
            group, held = self.groups[kind], deque[Call]()
            while calls and group.free() is not None:
                call = calls.popleft()
                if call.future.done():
                    continue
                if (found := self._place_for(call, kind)) is not None:
                    self._start(call, *found)
                else:
                    held.append(call)
            calls.extendleft(reversed(held))

    def _place_for(self, call: Call, kind: str) -> tuple[str, Any] | None:
        """The kind and the actor that may take a call; None: it has to wait for one."""
        group, names = self.groups[kind], call.others.names
        if group.starting or not names.issuperset(group.names.values()):
            actor = group.free(names)
            return None if actor is None else (kind, actor)
        # Those of another kind are slower at it, or cut it for their memory, but they are others.
        for other, theirs in self.groups.items():
            if other != kind and not names.issuperset(theirs.names.values()):
                actor = theirs.free(names)
                return None if actor is None else (other, actor)
        if not call.others.strictly:
            return kind, group.free()
        # None may, and none comes: a new one takes the place of the one with the least to do.
        actor = min(group.up, key=group.up.__getitem__)
        group.renew(actor)
        self._requeue(actor, RuntimeError("another worker was asked for"))
        return None

    def _dismiss(self, name: str) -> None:
        """End a worker, and queue the calls that it was given for others."""
        for group in self.groups.values():
            for actor in [actor for actor, known in group.names.items() if known == name]:
                group.dismiss(actor)
                self._requeue(actor, RuntimeError(f"the worker {name} was ended"))

    def _start(self, call: Call, kind: str, actor: Any) -> None:
        """Give a call to an actor; back to the front of the queue if the actor is dead."""
        call.tries += 1
        result = None
        try:
            if call.as_reference:
                # The task returns (something small, the large result): the first tells how it
                # ended, the second stays where it is.
                reference, result = actor.run.options(num_returns=2).remote(call.task)
            else:
                reference = actor.run.remote(call.task)
        except LOST as error:
            self.waiting[kind].appendleft(call)
            self._replace(kind, actor, error)
            return
        alone = self.groups[kind].call_started(actor) == 1
        began = time.monotonic() if alone else None
        self.in_flight.add(reference, CallInFlight(call, kind, actor, result, began))

    def _collect_ready(self) -> None:
        """Hand on the results that are ready, after a short wait for the first one."""
        starting = starting_actors(self.groups.values())
        pending = [*self.in_flight.references, *starting]
        if not pending:
            return
        # Short, so that new calls are seen soon; a result ends the wait at once.
        ready, rest = ray.wait(pending, num_returns=1, timeout=WAIT_SECONDS, fetch_local=False)
        if ready and rest:  # with hundreds in flight, take all that have ended by now
            ready += ray.wait(rest, num_returns=len(rest), timeout=0, fetch_local=False)[0]
        for reference in ready:
            if reference in starting:
                starting[reference].started(reference)
            elif reference in self.in_flight:  # else its actor was just found dead
                self.collect(reference)

    def collect(self, reference: Any) -> None:
        """Hand on the result of a call that has ended, or deal with its failure."""
        now = time.monotonic()
        entry = self.in_flight.end(reference, now)
        call = entry.call
        self.groups[entry.kind].call_ended(entry.actor)
        try:
            result = ray.get(reference)
        except RayTaskError as error:
            take_error(entry.result)
            cause = error.cause if getattr(error, "cause", None) is not None else error
            self._retry(call, cause) if isinstance(cause, LOST) else call.settle(error=cause)
        except LOST as error:
            # An actor that the memory monitor ended is reported by an error of its own kind.
            if isinstance(error, RayActorError | OutOfMemoryError):
                self._replace(entry.kind, entry.actor, error)
            self._retry(call, error)
        except Exception as error:  # whatever Ray raises, who waits for this call must hear of it
            call.settle(error=error)
        else:
            self.timer.record(call.name, now - (entry.began or now))
            if self._meter is not None and not call.future.done():
                self._meter.completed(result)
            call.settle(result if entry.result is None else ObjectHandle(entry.result))

    def _retry(self, call: Call, error: Exception) -> None:
        """Queue a call for another actor, unless a copy of it is in flight or has ended."""
        if call.future.done() or self.in_flight.copies(call) or call in self.waiting[call.kind]:
            return
        if call.tries >= TRIES or isinstance(error, ObjectLostError):
            # A lost argument cannot be made again here; who submitted the call starts over.
            call.settle(error=error)
        else:
            self.waiting[call.kind].appendleft(call)

    def _replace(self, kind: str, actor: Any, error: Exception) -> None:
        """Replace a dead actor and queue the calls that it was given again."""
        if self.groups[kind].replace(actor, error):
            self._requeue(actor, error)

    def _requeue(self, actor: Any, error: Exception) -> None:
        """Queue the calls that an actor was given for others."""
        for entry in self.in_flight.remove_actor(actor):
            # What waited behind another call was never started here.
            entry.call.tries -= entry.began is None
            self._retry(entry.call, error)

    def _check(self, now: float) -> None:
        """The periodic checks, each when it is due."""
        self._check_absence(now)
        if now - self._watched > WATCH_SECONDS:
            self._watched = now
            for entry in self.in_flight:
                if self.timer.is_late(entry, now):
                    self.on_late(entry, now)
        if self._meter is not None and now - self._reported > REPORT_SECONDS:
            self._reported = now
            self._meter.report(
                {kind: len(calls) for kind, calls in self.waiting.items()},
                {kind: len(group.up) for kind, group in self.groups.items()},
            )
        if now - self._grown > GROW_SECONDS:
            self._grown = now
            resources = ray.cluster_resources()
            for group in self.groups.values():
                group.grow(resources)

    def _check_absence(self, now: float) -> None:
        """RuntimeError: work waits, and no actor of its kind has been up for NO_WORKER_SECONDS."""
        for kind, group in self.groups.items():
            if group.responsive or not self.waiting[kind]:
                self._seen_up[kind] = now
            elif now - self._seen_up[kind] > NO_WORKER_SECONDS:
                raise RuntimeError(
                    f"no {kind} worker has been up for {NO_WORKER_SECONDS} s; bring back a node for"
                    " them, and run the same command again"
                )

    def on_late(self, entry: CallInFlight, now: float) -> None:
        """Start a late call elsewhere too; the first copy to end wins, and all write equal bytes.

        The actor is given nothing more until it answers: it may be busy as well as stuck, and
        nobody can tell. It is ended where no other actor of its kind could take over, where it
        decodes a whole file for too long, and where every copy of its call is late. A call that was
        started TRIES times is given up.
        """
        call, copies = entry.call, self.in_flight.copies(entry.call)
        seconds = now - (entry.began or now)
        silent = TimeoutError(f"no answer for {seconds:.0f} s")
        if isinstance(call.task, IngestSource):
            call.settle(error=undecodable(call.task, seconds))
            self._replace(entry.kind, entry.actor, silent)
        elif self._may_still_end(call, copies, now):
            return
        elif len(copies) > 1 or call.tries >= TRIES:
            log.warning("%s hangs wherever it is started; the workers that hold it are ended", call)
            if call.tries >= TRIES:
                call.settle(error=self.timer.hung(call))
            for copy in copies:
                self._replace(copy.kind, copy.actor, silent)
        else:
            log.warning(
                "a %s worker has been at %s for %.0f s; it is started elsewhere too",
                entry.kind,
                call,
                seconds,
            )
            self._start_elsewhere(entry, silent)

    def _may_still_end(self, call: Call, copies: list[CallInFlight], now: float) -> bool:
        """Whether a copy of a late call has ended, waits for an actor, or has time left."""
        return (
            call.future.done()
            or call in self.waiting[call.kind]
            or not all(self.timer.is_late(copy, now) for copy in copies)
        )

    def _start_elsewhere(self, entry: CallInFlight, silent: Exception) -> None:
        """Queue all calls of an actor that does not answer for other actors as well."""
        group = self.groups[entry.kind]
        group.suspects.add(entry.actor)
        for held in self.in_flight.of_actor(entry.actor):
            call = held.call
            alone = len(self.in_flight.copies(call)) == 1
            if alone and call not in self.waiting[call.kind] and not call.future.done():
                self.waiting[call.kind].append(call)
        if not group.responsive:
            self._replace(entry.kind, entry.actor, silent)
