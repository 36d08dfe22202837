"""Who does the work: the protocol that runs ask, and its plainest form, threads in this process."""

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Protocol

import torch

from tierscale.pipeline.errors import Refused
from tierscale.pipeline.run.worker import Worker


class Pool(Protocol):
    """Workers that carry out Worker's methods.

    width: calls worth having in flight at a time; it may change. split: whether the full tier has
    workers of its own. device: kind of device on which all of them enlarge, "cpu" or "cuda"; plans
    for them are made for it.
    """

    split: bool
    device: str

    @property
    def width(self) -> int: ...

    def submit(
        self, method: str, *args: Any, kind: str = "light", as_reference: bool = False
    ) -> Future:
        """Call a Worker method somewhere. kind: "light", or "full" for work of the full tier.

        as_reference: for methods that return (something small, something large): the large one may
        stay where it is, and the future gives a handle that a later call takes in its place.
        """
        ...

    def put(self, value: Any) -> Any:
        """Store a large value once; the handle that many calls may be given in its place."""
        ...

    def close(self) -> None: ...


class LocalPool:
    """Worker threads in this process: the plain loop that every other pool must equal byte for
    byte.

    device: "cpu" or "cuda". threads: torch's own threads, set for each worker thread by itself.
    """

    split = False

    def __init__(self, workers: int, device: str = "cpu", threads: int = 1) -> None:
        self.width, self.device = workers, device
        self._threads = threads
        self._local = threading.local()
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="worker")

    def submit(
        self, method: str, *args: Any, kind: str = "light", as_reference: bool = False
    ) -> Future:
        return self._executor.submit(self._call, method, args, as_reference)

    def _call(self, method: str, args: tuple[Any, ...], as_reference: bool) -> Any:
        if not hasattr(self._local, "worker"):
            self._local.worker = Worker(self.device, self._threads)
        result = getattr(self._local.worker, method)(*args)
        return result[1] if as_reference else result

    def put(self, value: Any) -> Any:
        return value

    def close(self) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> "LocalPool":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def device_here(asked: str) -> str:
    """The kind of device that workers in this process use: "cpu" or "cuda". Refused: there is none
    of the kind that was asked for.
    """
    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if asked == "cuda" and not torch.cuda.is_available():
        raise Refused("there is no CUDA device here; use --device cpu")
    if asked not in ("cpu", "cuda"):
        raise Refused(f"there is no device {asked!r}; choose auto, cpu or cuda")
    return asked
