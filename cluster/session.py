"""Where the work runs: threads here, a Ray of our own, or a Ray that is already running."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil

from pipeline.errors import Refused
from pipeline.pool import LocalPool, Pool, device_here
from pipeline.source import one_line

# Shared memory of an embedded Ray: pieces of the shards in flight, with room to spare.
STORE_BYTES = 512 << 20
LAYOUTS = ("auto", "split", "together")
# Seconds in which a cluster that is asked for by address has to answer.
ANSWER_SECONDS = 10


@contextmanager
def session(where: str, layout: str, device: str, workers: int | None = None) -> Iterator[Pool]:
    """A pool of workers. where: "none" (threads in this process), "local" (an embedded Ray), or the address of a cluster.

    device: "auto", "cpu" or "cuda". workers: how many; None: as many as the machine or cluster can feed.
    """
    if layout not in LAYOUTS:
        raise Refused(f"there is no layout {layout!r}; choose one of {', '.join(LAYOUTS)}")
    if where == "none":
        chosen = device_here(device)
        with LocalPool(workers or (cores() if chosen == "cpu" else 1), chosen) as pool:
            yield pool
        return
    with _ray(where, layout, device, workers) as on_ray:
        yield on_ray


def cores() -> int:
    """Processors this process may use, physical ones where that is known."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(usable, psutil.cpu_count(logical=False) or usable))


@contextmanager
def _ray(where: str, layout: str, device: str, workers: int | None) -> Iterator[Pool]:
    # Ray takes seconds to import, which commands that do not need it should not pay.
    import ray

    from cluster.pools import RayPool

    began_here = not ray.is_initialized()
    if began_here:
        # An embedded Ray has the devices of this process; on a cluster the workers' count, whatever the driver has.
        device = device_here(device) if where == "local" else device
        start(where, workers)
    try:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        light, full = marked(nodes, layout, device, workers) or specs(ray.cluster_resources(), layout, device, workers)
        pool = RayPool(light, full)
        try:
            yield pool
        finally:
            pool.close()
    finally:
        if began_here:
            ray.shutdown()


@contextmanager
def loopback() -> Iterator[None]:
    """In it, a Ray that is started listens on this machine alone, unless RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER says otherwise.

    Ray has this for desktop systems only, and otherwise listens on all interfaces, whatever node address it is given.
    """
    from ray._private import ray_constants

    if ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR in os.environ:
        yield
        return
    before = ray_constants.ENABLE_RAY_CLUSTER
    # The constant for this process, which may have imported Ray long ago; the variable for those that it starts.
    os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR], ray_constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        yield
    finally:
        del os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR]
        ray_constants.ENABLE_RAY_CLUSTER = before


def start(where: str, workers: int | None) -> None:
    """Start an embedded Ray ("local"), or join the one at an address."""
    import ray

    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if where == "local":
        # As many logical processors as there are actors: two real cores must not keep a third actor waiting for ever.
        with loopback():
            ray.init(
                address="local",
                num_cpus=max(4, 2 * (workers or cores())),
                object_store_memory=STORE_BYTES,
                include_dashboard=False,
                **quiet,
            )
        return
    advice = "start one with ray start --head, set RAY_AUTH_MODE=token where it wants one, or use --ray local"
    address = os.environ.get("RAY_ADDRESS", where) if where == "auto" else where
    if address != "auto" and not answers(address.split("://")[-1]):
        raise Refused(f"no Ray cluster answers at {address} within {ANSWER_SECONDS} s; {advice}")
    try:
        ray.init(address=where, **quiet)
    except (ConnectionError, ValueError, RuntimeError, SystemExit) as error:
        raise Refused(f"no Ray cluster answers at {where} ({one_line(error)}); {advice}") from error


def answers(address: str) -> bool:
    """Whether a gRPC server, as a Ray head is one, answers at "host:port" within ANSWER_SECONDS.

    Ray itself tries for two minutes, and then ends the process.
    """
    import grpc

    if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
        return True  # a server that wants certificates never answers this plain question
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=ANSWER_SECONDS)
        except grpc.FutureTimeoutError:
            return False
    return True


def marked(nodes: list[dict[str, float]], layout: str, device: str, workers: int | None):  # type: ignore[no-untyped-def]
    """Pools as the nodes ask for them by the resources "light" and "full", which say how many workers of each kind a node takes.

    nodes: resources of each. (light, full), or None where not both kinds are asked for or one pool is to do all.
    Refused: they would not have one kind of device.
    """
    from cluster.pools import PoolSpec

    homes = {kind: [node for node in nodes if node.get(kind, 0) >= 1] for kind in ("light", "full")}
    if layout == "together" or not all(homes.values()):
        return None
    with_gpu = {bool(node.get("GPU", 0)) for kind in homes for node in homes[kind]}
    if device != "cpu" and (with_gpu == {True, False} or (device == "cuda" and with_gpu == {False})):
        raise Refused("some of the nodes that take light and full workers have no GPU; use --device cpu, or give a GPU to each")
    kind_of_device = "cuda" if device != "cpu" and with_gpu == {True} else "cpu"
    size = {kind: sum(int(node[kind]) for node in homes[kind]) for kind in homes}
    if workers is not None:
        size["full"] = min(size["full"], max(1, workers // 2))
        size["light"] = min(size["light"], max(1, workers - size["full"]))

    def spec(kind: str) -> PoolSpec:
        # The workers of a node share its GPUs evenly; the node with the smallest shares sets them for all of its kind.
        share = min(1.0, *(node.get("GPU", 0) / (node.get("light", 0) + node.get("full", 0)) for node in homes[kind]))
        # Ray counts shares in ten-thousandths; three thirds must not add up to more than one.
        gpus = int(share * 1e4) / 1e4 if kind_of_device == "cuda" else 0
        return PoolSpec(size[kind], kind_of_device, num_cpus=0, num_gpus=gpus, mark=kind, grows=workers is None)

    return spec("light"), spec("full")


def specs(resources: dict[str, float], layout: str, device: str, workers: int | None):  # type: ignore[no-untyped-def]
    """Pool sizes for a cluster's resources: (light, full or None when one pool does both).

    All workers that enlarge have one kind of device, so that a plan means the same bytes in every layout.
    """
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
        # Two light workers to each full one keep a GPU fed while they read, stitch and write; halves and quarters fit in any order.
        light = max(1, min(processors - gpus, 2 * gpus))
        return PoolSpec(light, "cuda", num_gpus=0.25), PoolSpec(gpus, "cuda", num_gpus=0.5)
    if layout == "split":
        full = max(1, processors // 2)
        return PoolSpec(max(1, processors - full), "cpu"), PoolSpec(full, "cpu")
    return PoolSpec(processors, "cpu"), None
