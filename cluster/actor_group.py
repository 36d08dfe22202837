"""The Ray actors of one kind: brought up, given calls, replaced when they die."""

import logging
from dataclasses import dataclass
from operator import itemgetter
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

from tierscale.pipeline.errors import Refused
from tierscale.pipeline.run.workers.worker import Worker

log = logging.getLogger(__name__)

# Calls on their way to one actor: one at work, one waiting, so that it never idles and never
# hoards.
CALLS_PER_ACTOR = 2
# Actors in a row that may die before they are up, for each one that is wanted.
FALSE_STARTS = 4
# What Ray raises for work that is lost through no fault of its own.
LOST = (
    RayActorError,
    ActorDiedError,
    ActorUnavailableError,
    ObjectLostError,
    OwnerDiedError,
    OutOfMemoryError,
)


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """How many actors a pool has and what each takes.

    num_cpus, num_gpus: Ray's logical resources of one actor. device: where its networks run.
    threads: torch threads of one actor. mark: resource of ours that an actor takes one of, such as
    "full", so that it comes up on nodes that have it; "" for none. grows: whether more actors come
    up where the cluster gets more of the mark.
    """

    size: int
    device: str = "cpu"
    num_cpus: float = 1
    num_gpus: float = 0
    threads: int = 1
    mark: str = ""
    grows: bool = False


class Crew:
    """Actors of one kind. Those that are up are given calls; those that are coming may wait long
    for a node that has room.

    up: calls that each has in hand. coming: by what tells that they are up. suspects: those that
    let a call wait too long.
    """

    def __init__(self, kind: str, spec: PoolSpec) -> None:
        self.kind, self.spec = kind, spec
        self.up: dict[Any, int] = {}
        self.coming: dict[Any, Any] = {}
        self.suspects: set[Any] = set()
        self._false_starts = 0
        self.hire(spec.size)

    def __len__(self) -> int:
        return len(self.up) + len(self.coming)

    @property
    def answers(self) -> bool:
        """Whether an actor is up that lets no call wait."""
        return not self.up.keys() <= self.suspects

    def hire(self, count: int) -> None:
        """Bring up more actors. Ray neither restarts them nor repeats their calls: the pool does
        both, and sees what it did.
        """
        spec = self.spec
        marks: dict[str, float] = {spec.mark: 1} if spec.mark else {}
        remote = ray.remote(
            num_cpus=spec.num_cpus,
            num_gpus=spec.num_gpus,
            resources=marks,
            max_restarts=0,
            max_task_retries=0,
        )(Worker)
        for _ in range(count):
            actor: Any = remote.remote(spec.device, spec.threads)
            self.coming[actor.ready.remote()] = actor

    def arrived(self, reference: Any) -> None:
        """Welcome an actor whose call of ready() has ended, or bring up another. Refused: it cannot
        use its device.
        """
        actor = self.coming.pop(reference)
        try:
            ray.get(reference)
        except RayTaskError as error:
            raise error.cause if isinstance(error.cause, Refused) else error from None
        except LOST as error:
            self._false_starts += 1
            if self._false_starts > FALSE_STARTS * max(1, self.spec.size):
                raise RuntimeError(
                    f"{self.kind} workers die as they start ({type(error).__name__}: {error})"
                ) from error
            self.hire(1)
        else:
            self._false_starts = 0
            self.up[actor] = 0

    def free(self) -> Any | None:
        """The actor that is up, answers, and has the least in hand; None: all have enough, or none
        is up.
        """
        answering = (
            self.up.items()
            if not self.suspects
            else [entry for entry in self.up.items() if entry[0] not in self.suspects]
        )
        actor, calls = min(answering, key=itemgetter(1), default=(None, CALLS_PER_ACTOR))
        return None if calls >= CALLS_PER_ACTOR else actor

    def given(self, actor: Any, calls: int) -> None:
        """An actor has so many calls more (or fewer) in hand."""
        if actor in self.up:
            self.up[actor] += calls

    def lost(self, actor: Any, error: Exception) -> bool:
        """Replace an actor that died; False if it is gone already, or only restarting."""
        if isinstance(error, ActorUnavailableError) or actor not in self.up:
            return False
        log.warning(
            "a %s worker died (%s); it is replaced and its work done again",
            self.kind,
            type(error).__name__,
        )
        del self.up[actor]
        self.suspects.discard(actor)
        ray.kill(actor)
        self.hire(1)
        return True

    def grow(self, marks: dict[str, float]) -> None:
        """Bring up more actors if the cluster has more of the mark now. marks: all resources of the
        cluster.
        """
        if self.spec.grows:
            self.hire(max(0, int(marks.get(self.spec.mark, 0)) - len(self)))

    def kill(self) -> None:
        """End all actors."""
        for actor in (*self.up, *self.coming.values()):
            ray.kill(actor)
