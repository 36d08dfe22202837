"""Pools of workers: the protocol that runs rely on, and its plainest form, threads here."""

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any, Generic, Literal, Protocol, TypeVar

import psutil
import torch

from tierscale.pipeline.closing import Closing
from tierscale.pipeline.errors import Refused
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


class Pool(Protocol):
    """Workers that carry out tasks.

    width: tasks worth having under way at a time. split: whether the full tier has workers of its
    own. device: kind of device on which all of them enlarge, "cpu" or "cuda"; plans are made for
    it.
    """

    @property
    def width(self) -> int: ...
    @property
    def split(self) -> bool: ...
    @property
    def device(self) -> str: ...

    def submit(
        self, task: Task[Any], kind: Kind = "light", as_reference: bool = False
    ) -> Future[Any]:
        """Run a task somewhere. kind: "full" for work of the full tier.

        as_reference: of tasks that return (something small, something large). The future gives a
        Handle of the large one, which may stay where it was made.
        """
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
        self._free: SimpleQueue[Worker | None] = SimpleQueue()
        for _ in range(workers):
            self._free.put(None)  # made when it is needed
        self._executor = ThreadPoolExecutor(2 * workers, thread_name_prefix="worker")

    def submit(
        self, task: Task[Any], kind: Kind = "light", as_reference: bool = False
    ) -> Future[Any]:
        """Run a task on one of the threads; there is one kind of them."""
        return self._executor.submit(self._run, task, as_reference)

    def _run(self, task: Task[Any], as_reference: bool) -> Any:
        worker = self._free.get()
        if worker is None:
            worker = self._make_worker(self.device)
        turn = Turn(partial(self._free.put, worker))
        try:
            worker.begin(turn)
            result = task.run(worker)
        finally:
            turn.end()
        return InProcess(result[1]) if as_reference else result

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
