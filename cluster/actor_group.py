"""The Ray actors of one kind: started, given calls, replaced when they die."""

import contextlib
import logging
import time
from collections.abc import Collection, Mapping
from operator import itemgetter
from typing import Any

import ray
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    GetTimeoutError,
    ObjectLostError,
    OutOfMemoryError,
    OwnerDiedError,
    RayActorError,
    RayTaskError,
)

from tierscale.cluster.objects import WorkerActor
from tierscale.cluster.sizing import PoolSpec
from tierscale.pipeline.errors import Refused

log = logging.getLogger(__name__)

# Calls given to one actor at a time: one at work and one that waits, or writes what it has made, so
# that the actor never idles and never hoards.
CALLS_PER_ACTOR = 2
# Actors in a row that may die before they are up, for each one that is wanted.
FALSE_STARTS = 4
# Seconds that all actors may take to start: importing torch on a busy node takes tens of them. And
# seconds after which those of a group that grows later are no longer waited for.
START_SECONDS, JOIN_SECONDS = 180, 20
# What Ray raises for work that is lost through no fault of its own.
LOST = (
    RayActorError,
    ActorDiedError,
    ActorUnavailableError,
    ObjectLostError,
    OwnerDiedError,
    OutOfMemoryError,
)


class ActorGroup:
    """Actors of one kind.

    up: number of calls that each running actor was given and has not ended. names: of the workers
    that they hold. starting: actors that wait for a node with room or load, by the reference of
    their first call. suspects: actors with a late call, which are given nothing more until they
    answer.
    """

    def __init__(self, kind: str, spec: PoolSpec) -> None:
        self.kind, self.spec = kind, spec
        self.up: dict[Any, int] = {}
        self.starting: dict[Any, Any] = {}
        self.suspects: set[Any] = set()
        self.names: dict[Any, str] = {}
        self._dismissed = 0
        self._false_starts = 0
        self.start(spec.size)

    def __len__(self) -> int:
        return len(self.up) + len(self.starting)

    @property
    def responsive(self) -> bool:
        """Whether an actor is up that has no late call."""
        return not self.up.keys() <= self.suspects

    def start(self, count: int) -> None:
        """Start more actors.

        Ray neither restarts them nor repeats their calls: the pool does both, and sees what it did.
        """
        spec = self.spec
        remote = ray.remote(
            num_cpus=spec.num_cpus,
            num_gpus=spec.num_gpus,
            resources={spec.mark: 1.0} if spec.mark else {},
            max_restarts=0,
            max_task_retries=0,
        )(WorkerActor)
        for _ in range(count):
            actor: Any = remote.options(max_concurrency=CALLS_PER_ACTOR).remote(spec.device)
            self.starting[actor.ready.remote()] = actor

    def started(self, reference: Any) -> None:
        """Take an actor whose first call has ended into service, or start another if it died.

        Refused: the actor cannot use its device. RuntimeError: actors die again and again.
        """
        actor = self.starting.pop(reference)
        try:
            name = ray.get(reference)
        except RayTaskError as error:
            raise error.cause if isinstance(error.cause, Refused) else error from None
        except LOST as error:
            self._false_starts += 1
            if self._false_starts > FALSE_STARTS * max(1, self.spec.size):
                raise RuntimeError(
                    f"{self.kind} workers die as they start ({type(error).__name__}: {error})"
                ) from error
            self.start(1)
        else:
            self._false_starts = 0
            self.up[actor], self.names[actor] = 0, name

    def free(self, avoid: Collection[str] = ()) -> Any | None:
        """The responsive actor with the fewest calls; None where all have enough, or none is up.

        avoid: names of workers that will not do.
        """
        responsive = (
            entry
            for entry in self.up.items()
            if entry[0] not in self.suspects and self.names.get(entry[0]) not in avoid
        )
        actor, calls = min(responsive, key=itemgetter(1), default=(None, CALLS_PER_ACTOR))
        return None if calls >= CALLS_PER_ACTOR else actor

    def call_started(self, actor: Any) -> int:
        """Count a call that was sent to an actor; how many it has now."""
        self.up[actor] += 1
        return self.up[actor]

    def call_ended(self, actor: Any) -> None:
        """Count a call that an actor has ended: it is responsive."""
        if actor in self.up:
            self.up[actor] -= 1
        self.suspects.discard(actor)

    def replace(self, actor: Any, error: Exception) -> bool:
        """Start another actor for one that died; False if it is gone or only unavailable."""
        if isinstance(error, ActorUnavailableError) or actor not in self.up:
            return False
        log.warning(
            "a %s worker died (%s); it is replaced and its work is repeated",
            self.kind,
            type(error).__name__,
        )
        self._end(actor)
        self.start(1)
        return True

    def renew(self, actor: Any) -> None:
        """Let a new actor take the place of one: a second opinion takes another worker."""
        self._end(actor)
        self.start(1)

    def dismiss(self, actor: Any) -> None:
        """End an actor whose results are wrong; another is started only if it was the last.

        A new one would be likely to come up where this one was.
        """
        log.warning(
            "the %s worker %s makes other results than two others and is ended",
            self.kind,
            self.names.get(actor),
        )
        self._end(actor)
        if len(self):
            self._dismissed += 1
        else:
            self.start(1)

    def _end(self, actor: Any) -> None:
        del self.up[actor]
        self.names.pop(actor, None)
        self.suspects.discard(actor)
        ray.kill(actor)

    def grow(self, resources: Mapping[str, float]) -> None:
        """Start more actors if the cluster now offers more of the mark."""
        if self.spec.grows:
            wanted = int(resources.get(self.spec.mark, 0)) - self._dismissed
            self.start(max(0, wanted - len(self)))

    def kill(self) -> None:
        """End all actors."""
        for actor in (*self.up, *self.starting.values()):
            ray.kill(actor)


def starting_actors(groups: Collection[ActorGroup]) -> dict[Any, ActorGroup]:
    """The group of each actor that is not up yet, by the reference of the actor's first call."""
    return {reference: group for group in groups for reference in group.starting}


def wait_until_up(groups: Collection[ActorGroup]) -> None:
    """Wait for the actors to start. Refused: some find no room, or cannot use their device.

    Where nodes come and go, one that left a moment ago may have been counted: there, one actor of
    each kind is enough after JOIN_SECONDS, and the others join as they start.
    """
    began = time.monotonic()
    while starting := starting_actors(groups):
        enough = all(group.up and group.spec.grows for group in groups)
        seconds = (JOIN_SECONDS if enough else START_SECONDS) - (time.monotonic() - began)
        ready, _ = ray.wait(list(starting), num_returns=1, timeout=max(0, seconds))
        if ready:
            starting[ready[0]].started(ready[0])
            continue
        wanted = sum(map(len, groups))
        if not enough:
            raise Refused(_no_room(len(starting), wanted))
        up = wanted - len(starting)
        log.warning("%d of %d workers are up; the others join as they start", up, wanted)
        return


def _no_room(missing: int, wanted: int) -> str:
    """Why some actors did not start, as far as Ray tells."""
    free = {
        name: amount for name, amount in ray.available_resources().items() if name in ("CPU", "GPU")
    }
    return (
        f"{missing} of {wanted} workers did not start within {START_SECONDS} s (free on the"
        f" cluster: {free}); ask for fewer with --workers, or, where there is room, try again when"
        " the machine is less busy"
    )


def take_error(result: Any | None) -> None:
    """Take what a failed call left in the place of its large result: the same error once more.

    Ray prints errors that nobody takes, with their tracebacks, on the user's terminal.
    """
    if result is not None:
        with contextlib.suppress(RayTaskError, GetTimeoutError, *LOST):
            ray.get(result, timeout=1)
