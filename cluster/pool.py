"""Pools of Ray actors behind the pipeline's Pool protocol.

One actor class, two kinds of crew: "light" for reading, scoring, cheap tiers, stitching and
writing, "full" for the dearest tier. In the layout "together" one crew does both. A scheduler
thread hands out calls and collects results; every call is safe to repeat.
"""

import logging
import queue
import threading
import time
from collections import Counter, deque
from concurrent.futures import Future
from typing import Any

import ray
from ray.exceptions import ObjectLostError, OutOfMemoryError, RayActorError, RayTaskError

from tierscale.cluster.actor_group import LOST, Crew, PoolSpec
from tierscale.cluster.in_flight import Call, InHand, Patience
from tierscale.cluster.metrics import Meter
from tierscale.pipeline.errors import Damaged, Refused, one_line

__all__ = ["PoolSpec", "RayPool"]

log = logging.getLogger(__name__)

# Seconds that actors may take to come up; importing torch on a busy node takes tens of them.
START_SECONDS, JOIN_SECONDS = 180, 20
# Seconds that work may wait while no actor of its kind is up, because its nodes were taken away.
ABSENT_SECONDS = 900
# Seconds between looks at whether the cluster has grown.
GROW_SECONDS = 15
# Seconds between looks for calls that are late.
WATCH_SECONDS = 0.25
# Seconds between looks that Prometheus is told of.
TELL_SECONDS = 5
# Times that one call is begun before its error is handed on.
TRIES = 4


class RayPool:
    """Worker actors of one or two kinds. layout "together": one pool; "split": the dearest tier has
    its own.

    Actors that ask for a mark come and go with the nodes that have it.
    """

    def __init__(self, light: PoolSpec, full: PoolSpec | None = None) -> None:
        self.split = full is not None
        self.device = light.device
        # The larger shares of a GPU are asked for first: smaller ones then fit beside them.
        self._crews = {
            kind: Crew(kind, spec)
            for kind, spec in (("full", full), ("light", light))
            if spec is not None
        }
        self.width = sum(map(len, self._crews.values()))
        self._waiting: dict[str, deque[Call]] = {kind: deque() for kind in self._crews}
        self._flying: dict[Any, InHand] = {}
        self._patience, self._meter = Patience(), Meter(self.device)
        self._inbox: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._closing = False
        self._reason: Exception = RuntimeError("their pool was closed")
        self._gate = threading.Lock()
        self._looked = self._told = self._watched = time.monotonic()
        self._seen_up = dict.fromkeys(self._crews, self._looked)
        self._wait_ready()
        self._thread = threading.Thread(target=self._schedule, name="ray-pool", daemon=True)
        self._thread.start()

    def submit(self, method: str, *args: Any, kind: str = "light", keep: bool = False) -> Future:
        call = Call(method, args, kind if kind in self._crews else "light", keep)
        with self._gate:
            if self._closing:
                raise RuntimeError(
                    f"the Ray workers cannot be used any more ({one_line(self._reason)}); give the"
                    " same command again"
                )
            self._inbox.put(call)
        return call.future

    def _wait_ready(self) -> None:
        """Wait for the actors to come up. Refused: not all of them find a place, or can use their
        device.

        Where nodes come and go, one that went a moment ago may have been counted: there one actor
        of each kind is enough after a while, and the others join as they come.
        """
        began = time.monotonic()
        try:
            while coming := self._coming():
                enough = all(crew.up and crew.spec.grows for crew in self._crews.values())
                left = (JOIN_SECONDS if enough else START_SECONDS) - (time.monotonic() - began)
                ended, _ = ray.wait(list(coming), num_returns=1, timeout=max(0, left))
                if not ended and enough:
                    log.warning(
                        "%d of %d workers are up; the others join as they come",
                        self.width - len(coming),
                        self.width,
                    )
                    return
                if not ended:
                    free = {
                        name: amount
                        for name, amount in ray.available_resources().items()
                        if name in ("CPU", "GPU")
                    }
                    raise Refused(
                        f"{len(coming)} of {self.width} workers did not come up in {START_SECONDS}"
                        f" s (free on the cluster: {free}); ask for fewer with --workers, or, where"
                        " there is room, try again when the machine is less busy"
                    )
                coming[ended[0]].arrived(ended[0])
        except BaseException:
            self._kill()
            raise

    def _coming(self) -> dict[Any, Crew]:
        """The actors that are not up yet, by what tells when they are, with their crews."""
        return {reference: crew for crew in self._crews.values() for reference in crew.coming}

    def share(self, value: Any) -> Any:
        """Put a value into the object store once; calls are given its reference."""
        return ray.put(value)

    def close(self) -> None:
        """End the scheduler and the actors."""
        self._closing = True
        self._inbox.put(None)
        self._thread.join(timeout=30)
        self._kill()

    def _kill(self) -> None:
        for crew in self._crews.values():
            crew.kill()

    def _schedule(self) -> None:
        """Hand out calls and collect results until closed; should Ray itself fail, everyone who
        waits is told.
        """
        try:
            while not self._closing:
                self._turn()
        except Exception as error:
            log.error(
                "the Ray cluster cannot be used any more (%s: %s)",
                type(error).__name__,
                one_line(error),
            )
            self._reason = error
        with self._gate:
            self._closing = True
        self._take(block=False)
        for call in [flight.call for flight in self._flying.values()] + [
            call for calls in self._waiting.values() for call in calls
        ]:
            call.settle(error=self._reason)

    def _turn(self) -> None:
        """Hand out what waits, and collect one result."""
        # Calls that a dead actor left wait to be handed out again: only with nothing to do at all
        # is it right to sleep.
        self._take(block=not self._flying and not any(self._waiting.values()))
        self._hand_out()
        coming = self._coming()
        under_way = [*self._flying, *coming]
        if under_way:
            # A short wait: new calls are seen soon, and what is done ends it at once.
            done, rest = ray.wait(under_way, num_returns=1, timeout=0.02, fetch_local=False)
            # With hundreds of calls under way, all that are done by now are taken at once.
            more = (
                ray.wait(rest, num_returns=len(rest), timeout=0, fetch_local=False)[0]
                if done and rest
                else []
            )
            for reference in (*done, *more):
                if reference in coming:
                    coming[reference].arrived(reference)
                elif (
                    reference in self._flying
                ):  # else its actor was found dead a moment ago, and its call waits again
                    self._collect(reference)
        # Last: a call that ended while this process stood still is not late.
        self._look_around()

    def _look_around(self) -> None:
        """Bring up more actors where the cluster has grown. RuntimeError: work waits, and no actor
        of its kind has been up for long.
        """
        now = time.monotonic()
        for kind, crew in self._crews.items():
            if crew.answers or not self._waiting[kind]:
                self._seen_up[kind] = now
            elif now - self._seen_up[kind] > ABSENT_SECONDS:
                raise RuntimeError(
                    f"no {kind} worker has been up for {ABSENT_SECONDS} s; bring back a node for"
                    " them, and run again"
                )
        if now - self._watched > WATCH_SECONDS:
            self._watched = now
            for flight in list(self._flying.values()):
                if self._patience.late(flight, now):
                    self._late(flight, now)
        if now - self._told > TELL_SECONDS:
            self._told = now
            waiting = {kind: len(calls) for kind, calls in self._waiting.items()}
            self._meter.look(waiting, {kind: len(crew.up) for kind, crew in self._crews.items()})
        if now - self._looked > GROW_SECONDS:
            self._looked = now
            marks = ray.cluster_resources()
            for crew in self._crews.values():
                crew.grow(marks)
            self.width = sum(map(len, self._crews.values()))

    def _late(self, flight: InHand, now: float) -> None:
        """Begin what a late actor has in hand elsewhere too; the first copy to end wins, and all
        write the same bytes.

        The actor is given nothing more until it answers: it may be busy as well as stuck, and
        nobody can tell. It is ended where no other one of its kind could take over, where it
        decodes a whole file for too long, and where every copy of its call is late: that counts
        like any death, and a call that was begun TRIES times is given up.
        """
        call, crew = flight.call, self._crews[flight.kind]
        seconds = now - (flight.began or now)
        copies = [other for other in self._flying.values() if other.call is call]
        silent = TimeoutError(f"no sign of it for {seconds:.0f} s")
        if call.method == "ingest":
            text = (
                f"{call.args[0]}: decoding it took more than {seconds:.0f} s and was given up;"
                " convert it to a tiled TIFF or to zarr"
            )
            call.settle(error=Damaged(text))
            self._lost(flight.kind, flight.actor, silent)
        elif (
            call.future.done()
            or call in self._waiting[call.kind]
            or not all(self._patience.late(copy, now) for copy in copies)
        ):
            return  # another copy has ended, or has time yet
        elif len(copies) > 1 or call.tries >= TRIES:
            log.warning("%s hangs wherever it is begun; the workers that hold it are ended", call)
            if call.tries >= TRIES:
                call.settle(error=call.hung(self._patience.limit(call.method, call.tries)))
            for copy in copies:
                self._lost(copy.kind, copy.actor, silent)
        else:
            log.warning(
                "a %s worker has been at %s for %.0f s; it is begun elsewhere too",
                flight.kind,
                call,
                seconds,
            )
            crew.suspects.add(flight.actor)
            held = [other.call for other in self._flying.values() if other.actor == flight.actor]
            under_way = Counter(other.call for other in self._flying.values())
            for other in held:
                if (
                    under_way[other] == 1
                    and other not in self._waiting[other.kind]
                    and not other.future.done()
                ):
                    self._waiting[other.kind].append(other)
            if not crew.answers:
                self._lost(flight.kind, flight.actor, silent)

    def _take(self, block: bool) -> None:
        """Move new calls to the waiting line of their kind."""
        while True:
            try:
                call = self._inbox.get(block=block)
            except queue.Empty:
                return
            block = False
            if call is None:
                return
            self._waiting[call.kind].append(call)

    def _hand_out(self) -> None:
        for kind, calls in self._waiting.items():
            crew = self._crews[kind]
            while calls and (actor := crew.free()) is not None:
                call = calls.popleft()
                if call.future.done():
                    continue
                call.tries += 1
                try:
                    method = getattr(actor, call.method)
                    # A kept call returns (something small, the large result): the first tells how
                    # it ended, the second stays where it is.
                    reference, kept = (
                        method.options(num_returns=2).remote(*call.args)
                        if call.keep
                        else (method.remote(*call.args), None)
                    )
                except LOST as error:
                    calls.appendleft(call)
                    self._lost(kind, actor, error)
                    continue
                crew.given(actor, 1)
                self._flying[reference] = InHand(
                    call, kind, actor, kept, time.monotonic() if crew.up[actor] == 1 else None
                )

    def _collect(self, reference: Any) -> None:
        """Hand on one result, or see to its failure."""
        flight = self._flying.pop(reference)
        call, kind, actor, now = flight.call, flight.kind, flight.actor, time.monotonic()
        self._crews[kind].given(actor, -1)
        self._crews[kind].suspects.discard(actor)
        for other in self._flying.values():
            if other.actor is actor:
                other.began = now
        try:
            result = ray.get(reference)
        except RayTaskError as error:
            cause = error.cause if getattr(error, "cause", None) is not None else error
            self._retry(call, cause) if isinstance(cause, LOST) else call.settle(error=cause)
        except LOST as error:
            # An actor that the memory monitor ended is told of by an error of its own kind.
            if isinstance(error, RayActorError | OutOfMemoryError):
                self._lost(kind, actor, error)
            self._retry(call, error)
        except (
            Exception
        ) as error:  # whatever Ray raises, the one who waits for this call must hear of it
            call.settle(error=error)
        else:
            self._patience.ended(call.method, now - (flight.began or now))
            if not call.future.done():
                self._meter.landed(result)
            call.settle(result if flight.kept is None else flight.kept)

    def _retry(self, call: Call, error: Exception) -> None:
        """Wait for another actor, unless a copy of the call is under way or has ended."""
        if (
            call.future.done()
            or any(flight.call is call for flight in self._flying.values())
            or call in self._waiting[call.kind]
        ):
            return
        if call.tries >= TRIES or isinstance(error, ObjectLostError):
            # A lost argument cannot be made again here; the shard is begun anew by its flight.
            call.settle(error=error)
        else:
            self._waiting[call.kind].appendleft(call)

    def _lost(self, kind: str, actor: Any, error: Exception) -> None:
        """See to a dead actor's replacement and to the other calls that it had in hand."""
        if self._crews[kind].lost(actor, error):
            orphans = [
                self._flying.pop(other)
                for other, flight in list(self._flying.items())
                if flight.actor == actor
            ]
            for flight in orphans:
                # What waited behind another call was never begun here.
                flight.call.tries -= flight.began is None
                self._retry(flight.call, error)
