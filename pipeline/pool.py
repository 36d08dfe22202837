"""Who does the work: the protocol that runs ask, and its plainest form, threads in this process."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

from pipeline.worker import Worker


class Pool(Protocol):
    """Workers that carry out Worker's methods.

    width: calls worth having under way at a time. split: whether the dearest tier has workers of its own.
    """

    width: int
    split: bool

    def submit(self, method: str, *args: Any, kind: str = "light", keep: bool = False) -> Future:
        """Call a Worker method somewhere. kind: "light", or "full" for work of the dearest tier. keep: for
        methods that return (something small, something large): the large one may stay where it is, and the future gives a handle that
        a later call takes in its place."""
        ...

    def share(self, value: Any) -> Any:
        """A handle by which calls may be given a large value many times."""
        ...

    def close(self) -> None: ...


class LocalPool:
    """Worker threads in this process: the plain loop that every other pool must equal byte for byte.

    make: builds the worker of a thread. Torch's own threads are set for each worker thread by itself.
    """

    split = False

    def __init__(self, workers: int, make: Callable[[], Worker]) -> None:
        self.width = workers
        self._local = threading.local()
        self._make = make
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="worker")

    def submit(self, method: str, *args: Any, kind: str = "light", keep: bool = False) -> Future:
        return self._executor.submit(self._call, method, args, keep)

    def _call(self, method: str, args: tuple[Any, ...], keep: bool) -> Any:
        if not hasattr(self._local, "worker"):
            self._local.worker = self._make()
        result = getattr(self._local.worker, method)(*args)
        return result[1] if keep else result

    def share(self, value: Any) -> Any:
        return value

    def close(self) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)
