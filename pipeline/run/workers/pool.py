"""Pools of workers: the protocol that runs rely on, and its plainest form, threads here."""

import os
import threading
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any, Generic, Literal, Protocol, TypeVar

import psutil
import torch

from tierscale.models import registry
from tierscale.pipeline.closing import Closing
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.plan.precision import Hardware
from tierscale.pipeline.run.workers.processor import hardware_here
from tierscale.pipeline.run.workers.worker import Turn, Worker

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")
Kind = Literal["light", "full"]


class Handle(Protocol[T_co]):
    """A large value that tasks refer to; where it is kept is the pool's own business."""

    def get(self) -> T_co:
        """The value, where the task runs."""
        ...


class Task(Protocol[T_co]):
    """A call to a worker: a frozen object that can be sent anywhere and repeated."""

    def run(self, worker: Worker) -> T_co:
        """Do it."""
        ...


@dataclass(frozen=True, slots=True)
class Others:
    """The workers that a task is for: all but those with some names.

    strictly: where there are no others, a new one is started; otherwise any of them does it.
    """

    names: frozenset[str] = frozenset()
    strictly: bool = False


ANY = Others()


class Pool(Protocol):
    """Workers that carry out tasks.

    width: tasks worth having under way at a time. split: whether the full tier has workers of its
    own. hardware: the kind of device and of bfloat16 with which all of them enlarge; plans are made
    for it.
    """

    @property
    def width(self) -> int: ...
    @property
    def split(self) -> bool: ...
    @property
    def device(self) -> str: ...
    @property
    def hardware(self) -> Hardware: ...

    def submit(
        self,
        task: Task[Any],
        kind: Kind = "light",
        as_reference: bool = False,
        others: Others = ANY,
    ) -> Future[Any]:
        """Run a task somewhere. kind: "full" for work of the full tier.

        as_reference: of tasks that return (something small, something large). The future gives a
        Handle of the large one, which may stay where it was made. others: who may do it.
        """
        ...

    def dismiss(self, worker: str) -> None:
        """End a worker, by its name, whose results are wrong."""
        ...

    def put(self, value: T) -> Handle[T]:
        """A handle by which many tasks may refer to one large value."""
        ...

    def close(self) -> None:
        """End the workers."""
        ...


@dataclass(frozen=True, slots=True)
class InProcess(Generic[T]):
    """The handle of a value in this process."""

    value: T

    def get(self) -> T:
        """The value itself."""
        return self.value


class LocalPool(Closing):
    """Workers in threads of this process: the plain loop, whose bytes every other pool's equal.

    There are two threads for each worker: one whose task computes, and one whose task waits for the
    disk. make_worker: makes a worker, on a kind of device.
    """

    split = False

    def __init__(
        self, workers: int, device: str = "cpu", make_worker: Callable[[str], Worker] = Worker
    ) -> None:
        self.width, self.device = workers, device
        self._make_worker = make_worker
        self._hiring = threading.Lock()
        self._dismissed: set[str] = set()
        self._spares: list[Worker] = []
        self._free: SimpleQueue[Worker | None] = SimpleQueue()
        for _ in range(workers):
            self._free.put(None)  # made when it is needed
        self._executor = ThreadPoolExecutor(2 * workers, thread_name_prefix="worker")

    @property
    def hardware(self) -> Hardware:
        """That of this process."""
        return hardware_here(self.device)

    def submit(
        self,
        task: Task[Any],
        kind: Kind = "light",
        as_reference: bool = False,
        others: Others = ANY,
    ) -> Future[Any]:
        """Run a task on one of the threads; there is one kind of them.

        Workers share their networks here. Those that must be others have networks of their own.
        """
        return self._executor.submit(self._run, task, as_reference, others.names)

    def dismiss(self, worker: str) -> None:
        """Use a worker no more; a new one takes its place, with networks that are loaded anew."""
        self._dismissed.add(worker)

    def _run(self, task: Task[Any], as_reference: bool, avoid: frozenset[str]) -> Any:
        holder = self._free.get()
        if holder is None or holder.name in self._dismissed:
            holder = self._hired(self._dismissed)
        spare = holder.name in avoid
        worker = self._hired(avoid | self._dismissed) if spare else holder
        turn = Turn(partial(self._free.put, holder))
        try:
            worker.begin(turn)
            result = task.run(worker)
        finally:
            turn.end()
            if spare:
                self._spares.append(worker)
        return InProcess(result[1]) if as_reference else result

    def _hired(self, avoid: Collection[str]) -> Worker:
        """A worker that has no place now, or a new one; none with these names."""
        with self._hiring:
            for spare in self._spares:
                if spare.name not in avoid:
                    self._spares.remove(spare)
                    return spare
            if avoid:
                registry.forget()
            return self._make_worker(self.device)

    def put(self, value: T) -> Handle[T]:
        """The value itself, wrapped."""
        return InProcess(value)

    def close(self) -> None:
        """Wait for the tasks under way; those that wait are cancelled."""
        self._executor.shutdown(wait=True, cancel_futures=True)


def cores() -> int:
    """Processors this process may use, physical ones where that is known."""
    usable = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return max(1, min(usable, psutil.cpu_count(logical=False) or usable))


def device_here(name: str) -> str:
    """The kind of device that workers in this process use: "cpu" or "cuda". Refused: none such."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise Refused("there is no CUDA device here; use --device cpu")
    if name not in ("cpu", "cuda"):
        raise Refused(f"there is no device {name!r}; choose auto, cpu or cuda")
    return name
