"""Large values in Ray's object store, and the actor that gets them where a task runs."""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import ray

from tierscale.pipeline.run.workers.pool import Task
from tierscale.pipeline.run.workers.worker import Turn, Worker, use_whole_process

# Shared values, such as plans, that one process keeps unpacked.
KEPT = 4
_kept: OrderedDict[Any, Any] = OrderedDict()


@dataclass(frozen=True, slots=True)
class ObjectHandle:
    """A value in the object store.

    shared: many tasks refer to it, so a process unpacks it once and keeps it for the next task.
    """

    reference: Any
    shared: bool = False

    def get(self) -> Any:
        """The value, brought to this node if need be. Ray's own errors where it is lost."""
        if not self.shared:
            return ray.get(self.reference)
        if self.reference not in _kept:
            _kept[self.reference] = ray.get(self.reference)
            while len(_kept) > KEPT:
                _kept.popitem(last=False)
        _kept.move_to_end(self.reference)
        return _kept[self.reference]


class WorkerActor:
    """A worker as a Ray actor. It only passes tasks on."""

    def __init__(self, device: str) -> None:
        use_whole_process()
        self.worker = Worker(device)
        self._computing = threading.Lock()

    def ready(self) -> str:
        """The worker's name. Refused: it cannot use its device."""
        self.worker.check_device()
        return self.worker.name

    def run(self, task: Task[Any]) -> Any:
        """What the task returns. Two may run at a time: one that computes, one that writes."""
        self._computing.acquire()
        turn = Turn(self._computing.release)
        try:
            self.worker.begin(turn)
            return task.run(self.worker)
        finally:
            turn.end()
