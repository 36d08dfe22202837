"""Where the work runs: threads here, a Ray of our own, or a Ray that is already running."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import psutil

from pipeline.errors import Refused
from pipeline.pool import LocalPool, Pool
from pipeline.worker import Worker

# Shared memory of an embedded Ray: pieces of the shards in flight, with room to spare.
STORE_BYTES = 512 << 20
LAYOUTS = ("auto", "split", "together")


@contextmanager
def session(where: str, layout: str, device: str, workers: int | None = None) -> Iterator[Pool]:
    """A pool of workers. where: "none" (threads in this process), "local" (an embedded Ray), or the address of a cluster.

    device: "auto", "cpu" or "cuda". workers: how many; None: as many as the machine or cluster can feed.
    """
    if layout not in LAYOUTS:
        raise Refused(f"there is no layout {layout!r}; choose one of {', '.join(LAYOUTS)}")
    if where == "none":
        chosen = _kind(device)
        pool: Any = LocalPool(workers or (cores() if chosen == "cpu" else 1), partial(Worker, chosen, 1))
        try:
            yield pool
        finally:
            pool.close()
        return
    with _ray(where, layout, device, workers) as pool:
        yield pool


def cores() -> int:
    """Processors this process may use, physical ones where that is known."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(usable, psutil.cpu_count(logical=False) or usable))


def _kind(device: str) -> str:
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


@contextmanager
def _ray(where: str, layout: str, device: str, workers: int | None) -> Iterator[Pool]:
    # Ray takes seconds to import, which commands that do not need it should not pay.
    import ray

    from cluster.pools import RayPool

    began_here = not ray.is_initialized()
    if began_here:
        start(where, workers)
    try:
        light, full = specs(ray.cluster_resources(), layout, device, workers)
        pool = RayPool(light, full)
        try:
            yield pool
        finally:
            pool.close()
    finally:
        if began_here:
            ray.shutdown()


def start(where: str, workers: int | None) -> None:
    """Start an embedded Ray ("local"), or join the one at an address."""
    import ray

    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if where == "local":
        # As many logical processors as there are actors: two real cores must not keep a third actor waiting for ever.
        ray.init(
            address="local",
            num_cpus=max(4, 2 * (workers or cores())),
            object_store_memory=STORE_BYTES,
            include_dashboard=False,
            **quiet,
        )
        return
    try:
        ray.init(address=where, **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise Refused(
            f"no Ray cluster answers at {where} ({str(error).splitlines()[0]}); start one with ray start --head, or use --ray local"
        ) from error


def specs(resources: dict[str, float], layout: str, device: str, workers: int | None):  # type: ignore[no-untyped-def]
    """Pool sizes for a cluster's resources: (light, full or None when one pool does both)."""
    from cluster.pools import PoolSpec

    gpus = int(resources.get("GPU", 0))
    if device == "cuda" and not gpus:
        raise Refused("the Ray cluster has no GPU; use --device cpu, or add one")
    nodes = sum(1 for name in resources if name.startswith("node:") and name != "node:__internal_head__")
    # On one machine Ray was told more processors than there are, so that actors fit; the real ones set the pace.
    told = max(1, int(resources.get("CPU", 1)))
    processors = workers or (min(cores(), told) if nodes <= 1 else max(1, told - nodes))
    if device != "cpu" and gpus:
        if layout == "together":
            return PoolSpec(gpus, "cuda", num_gpus=1), None
        light = max(1, min(processors - gpus, 2 * gpus))
        return PoolSpec(light, "cpu"), PoolSpec(gpus, "cuda", num_gpus=1)
    if layout == "split":
        full = max(1, processors // 2)
        return PoolSpec(max(1, processors - full), "cpu"), PoolSpec(full, "cpu")
    return PoolSpec(processors, "cpu"), None
