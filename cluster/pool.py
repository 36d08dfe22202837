"""A pool of Ray actors behind the pipeline's Pool protocol.

One actor class, two groups of it: "light" for reading, scoring, light tiers, stitching and writing,
and "full" for the full tier. In the layout "together" one group does both.
"""

import logging
import threading
from concurrent.futures import Future
from typing import Any

import ray

from tierscale.cluster.actor_group import ActorGroup, wait_until_up
from tierscale.cluster.in_flight import Call
from tierscale.cluster.metrics import Meter
from tierscale.cluster.objects import ObjectHandle
from tierscale.cluster.scheduler import Scheduler
from tierscale.cluster.sizing import PoolSpec
from tierscale.pipeline.errors import one_line
from tierscale.pipeline.run.workers.pool import ANY, Kind, Others, Task

log = logging.getLogger(__name__)


class RayPool:
    """Worker actors of one or two kinds, with a thread that schedules calls on them.

    Actors that need a mark come and go with the nodes that offer it. group: what starts the actors
    of one kind. Refused: not all actors find room, or they cannot use their device.
    """

    def __init__(
        self, light: PoolSpec, full: PoolSpec | None = None, group: type[ActorGroup] = ActorGroup
    ) -> None:
        self.split = full is not None
        self.device = light.device
        # The full group first: smaller shares of a GPU then fit beside its larger ones.
        specs = (("full", full), ("light", light))
        self._groups = {kind: group(kind, spec) for kind, spec in specs if spec is not None}
        self._scheduler = Scheduler(self._groups, Meter(self.device))
        self._closing = False
        self._reason: Exception = RuntimeError("their pool was closed")
        self._gate = threading.Lock()
        try:
            wait_until_up(self._groups.values())
        except BaseException:
            self._kill()
            raise
        self._thread = threading.Thread(target=self._schedule, name="ray-pool", daemon=True)
        self._thread.start()

    @property
    def width(self) -> int:
        """Actors that are up or starting: calls worth having in flight at a time."""
        return sum(map(len, self._groups.values()))

    def submit(
        self,
        task: Task[Any],
        kind: Kind = "light",
        as_reference: bool = False,
        others: Others = ANY,
    ) -> Future[Any]:
        """Queue a task for a worker of the kind, or for a light one where there is one group."""
        call = Call(task, kind if kind in self._groups else "light", as_reference, others)
        with self._gate:
            if self._closing:
                raise RuntimeError(
                    f"the Ray workers cannot be used any more ({one_line(self._reason)}); run the"
                    " same command again"
                )
            self._scheduler.put(call)
        return call.future

    def dismiss(self, worker: str) -> None:
        """End a worker, by its name; another is started only where it was the last of its kind."""
        self._scheduler.put(worker)

    def put(self, value: Any) -> ObjectHandle:
        """Store a value in the object store once; tasks carry its reference."""
        return ObjectHandle(ray.put(value), shared=True)

    def close(self) -> None:
        """End the scheduler and the actors."""
        self._closing = True
        self._scheduler.put(None)
        self._thread.join(timeout=30)
        self._kill()

    def _kill(self) -> None:
        for group in self._groups.values():
            group.kill()

    def _schedule(self) -> None:
        """Schedule calls until closed; if Ray itself fails, all that wait get the error."""
        try:
            while not self._closing:
                self._scheduler.turn()
        except Exception as error:
            log.error(
                "the Ray cluster cannot be used any more (%s: %s)",
                type(error).__name__,
                one_line(error),
            )
            self._reason = error
        with self._gate:
            self._closing = True
        self._scheduler.fail_all(self._reason)
