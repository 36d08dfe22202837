"""Pools of Ray actors behind the pipeline's Pool protocol.

One actor class, two kinds of pool: "light" for reading, scoring, cheap tiers, stitching and writing, "full" for the
dearest tier. In the layout "together" one pool does both. A scheduler thread keeps at most two calls in flight for each
actor, replaces dead actors and does their calls again; every call is safe to repeat.
"""

import logging
import queue
import threading
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    ObjectLostError,
    OutOfMemoryError,
    OwnerDiedError,
    RayActorError,
    RayTaskError,
)

from pipeline.errors import Refused
from pipeline.worker import Worker

log = logging.getLogger(__name__)

# Calls on their way to one actor: one at work, one waiting, so that it never idles and never hoards.
CALLS_PER_ACTOR = 2
# Seconds that actors may take to come up; importing torch on a busy node takes tens of them.
START_SECONDS = 180

# Times that one call is begun before its error is handed on.
TRIES = 4

LOST = (RayActorError, ActorDiedError, ActorUnavailableError, ObjectLostError, OwnerDiedError, OutOfMemoryError)


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """How many actors a pool has and what each takes.

    num_cpus, num_gpus: Ray's logical resources of one actor. device: where its networks run. threads: torch threads of one actor.
    """

    size: int
    device: str = "cpu"
    num_cpus: float = 1
    num_gpus: float = 0
    threads: int = 1


@dataclass(slots=True)
class _Call:
    method: str
    args: tuple[Any, ...]
    kind: str
    keep: bool
    future: Future = field(default_factory=Future)
    tries: int = 0


class RayPool:
    """Worker actors of one or two kinds. layout "together": one pool; "split": the dearest tier has its own."""

    def __init__(self, light: PoolSpec, full: PoolSpec | None = None) -> None:
        self.split = full is not None
        self.device = light.device
        # The larger shares of a GPU are asked for first: smaller ones then fit beside them.
        self.specs = ({"full": full} if full else {}) | {"light": light}
        self.width = sum(spec.size for spec in self.specs.values())
        self._actors: dict[str, list[Any]] = {kind: [_actor(spec) for _ in range(spec.size)] for kind, spec in self.specs.items()}
        self._waiting: dict[str, deque[_Call]] = {kind: deque() for kind in self.specs}
        self._load: dict[Any, int] = {}
        self._flying: dict[Any, tuple[_Call, str, Any, Any]] = {}
        self._inbox: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._closing = False
        self._gate = threading.Lock()
        self._wait_ready()
        self._thread = threading.Thread(target=self._schedule, name="ray-pool", daemon=True)
        self._thread.start()

    def submit(self, method: str, *args: Any, kind: str = "light", keep: bool = False) -> Future:
        call = _Call(method, args, kind if kind in self.specs else "light", keep)
        with self._gate:
            if self._closing:
                raise RuntimeError("the pool of Ray workers is closed")
            self._inbox.put(call)
        return call.future

    def _wait_ready(self) -> None:
        """Wait for the actors to come up. Refused: not all of them find a place, or can use their device."""
        calls = [actor.ready.remote() for actors in self._actors.values() for actor in actors]
        up, missing = ray.wait(calls, num_returns=len(calls), timeout=START_SECONDS)
        try:
            ray.get(up)
        except RayTaskError as error:
            self._kill()
            raise error.cause if isinstance(error.cause, Refused) else error from None
        if missing:
            free = {name: amount for name, amount in ray.available_resources().items() if name in ("CPU", "GPU")}
            self._kill()
            raise Refused(
                f"{len(missing)} of {len(calls)} workers found no place on the cluster in {START_SECONDS} s (free: {free}); use --workers"
            )

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
        for actors in self._actors.values():
            for actor in actors:
                ray.kill(actor)

    def _schedule(self) -> None:
        """Hand out calls and collect results until closed; should Ray itself fail, everyone who waits is told."""
        reason: Exception = RuntimeError("the pool of Ray workers was closed")
        try:
            while not self._closing:
                self._turn()
        except Exception as error:
            log.exception("the Ray cluster cannot be used any more")
            reason = error
        with self._gate:
            self._closing = True
        self._take(block=False)
        for call in [flying[0] for flying in self._flying.values()] + [call for calls in self._waiting.values() for call in calls]:
            if not call.future.done():
                call.future.set_exception(reason)

    def _turn(self) -> None:
        """Hand out what waits, and collect one result."""
        # Calls that a dead actor left wait to be handed out again: only with nothing to do at all is it right to sleep.
        self._take(block=not self._flying and not any(self._waiting.values()))
        self._hand_out()
        if self._flying:
            # A short wait, so that new calls are seen soon; ray.wait returns at once when something is done.
            done, _ = ray.wait(list(self._flying), num_returns=1, timeout=0.02, fetch_local=False)
            for reference in done:
                self._collect(reference)

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
            while calls:
                index = min(range(len(self._actors[kind])), key=lambda i: self._load.get(self._actors[kind][i], 0))
                actor = self._actors[kind][index]
                if self._load.get(actor, 0) >= CALLS_PER_ACTOR:
                    break
                call = calls.popleft()
                call.tries += 1
                try:
                    method = getattr(actor, call.method)
                    # A kept call returns (something small, the large result): the first tells how it ended, the second stays where it is.
                    reference, kept = method.options(num_returns=2).remote(*call.args) if call.keep else (method.remote(*call.args), None)
                except LOST as error:
                    calls.appendleft(call)
                    self._replace(kind, actor, error)
                    continue
                self._load[actor] = self._load.get(actor, 0) + 1
                self._flying[reference] = (call, kind, actor, kept)

    def _collect(self, reference: Any) -> None:
        """Hand on one result, or see to its failure."""
        call, kind, actor, kept = self._flying.pop(reference)
        self._load[actor] -= 1
        try:
            result = ray.get(reference)
        except RayTaskError as error:
            cause = error.cause if getattr(error, "cause", None) is not None else error
            if isinstance(cause, LOST):
                self._retry(call, cause)
            else:
                call.future.set_exception(cause)
        except LOST as error:
            if isinstance(error, RayActorError):
                self._replace(kind, actor, error)
            self._retry(call, error)
        except Exception as error:  # whatever Ray raises, the one who waits for this call must hear of it
            call.future.set_exception(error)
        else:
            call.future.set_result(result if kept is None else kept)

    def _retry(self, call: _Call, error: Exception) -> None:
        if call.tries >= TRIES or isinstance(error, ObjectLostError):
            # A lost argument cannot be made again here; the shard is begun anew by its flight.
            call.future.set_exception(error)
        else:
            self._waiting[call.kind].appendleft(call)

    def _replace(self, kind: str, actor: Any, error: Exception) -> None:
        """Put a new actor in the place of a dead one. One that is only restarting is left alone."""
        if isinstance(error, ActorUnavailableError) or actor not in self._actors[kind]:
            return
        log.warning("a %s worker died (%s); it is replaced and its work done again", kind, type(error).__name__)
        self._actors[kind][self._actors[kind].index(actor)] = _actor(self.specs[kind])
        self._load.pop(actor, None)
        ray.kill(actor)
        for other in list(self._flying):
            call, _, its_actor, _ = self._flying[other]
            if its_actor == actor:
                del self._flying[other]
                self._retry(call, error)


def _actor(spec: PoolSpec) -> Any:
    """A new worker actor. Ray neither restarts it nor repeats its calls: the scheduler does both, and sees what it did."""
    remote = ray.remote(num_cpus=spec.num_cpus, num_gpus=spec.num_gpus, max_restarts=0, max_task_retries=0)(Worker)
    return remote.remote(spec.device, spec.threads)
