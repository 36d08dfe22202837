"""Where the work runs: threads here, a Ray of our own, or a Ray that is already running."""

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from tierscale.pipeline.errors import Refused, one_line
from tierscale.pipeline.run.pool import LocalPool, Pool, device_here

# Shared memory of an embedded Ray: pieces of the shards in flight, with room to spare.
STORE_BYTES = 512 << 20
LAYOUTS = ("auto", "split", "together")
# Resources of ours by which nodes say how many workers of each kind they take.
KINDS = ("light", "full")
# Seconds to wait for a first node of each kind: one that the autoscaler starts, which boots and
# installs, and one that joins by itself.
STARTED_SECONDS, JOINING_SECONDS = 600, 60
# What `ray up` leaves on the head; Ray Tune looks for it there too.
BOOTSTRAP = Path("~/ray_bootstrap_config.yaml")
# Seconds in which a cluster that is asked for by address has to answer.
ANSWER_SECONDS = 10

log = logging.getLogger(__name__)


@contextmanager
def session(where: str, layout: str, device: str, workers: int | None = None) -> Iterator[Pool]:
    """A pool of workers. where: "none" (threads in this process), "local" (an embedded Ray), or the
    address of a cluster.

    device: "auto", "cpu" or "cuda". workers: how many; None: as many as the machine or cluster can
    feed.
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
    usable = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return max(1, min(usable, psutil.cpu_count(logical=False) or usable))


@contextmanager
def _ray(where: str, layout: str, device: str, workers: int | None) -> Iterator[Pool]:
    # Ray takes seconds to import, which commands that do not need it should not pay.
    import ray

    from tierscale.cluster.pool import RayPool

    began_here = not ray.is_initialized()
    if began_here:
        # An embedded Ray has the devices of this process; on a cluster the workers' count, whatever
        # the driver has.
        device = device_here(device) if where == "local" else device
        start(where, workers)
    try:
        nodes = nodes_of(set() if where == "local" else promised(), layout)
        light, full = marked(nodes, layout, device, workers) or specs(
            ray.cluster_resources(), layout, device, workers
        )
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
    """In it, a Ray that is started listens on this machine alone, unless
    RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER says otherwise.

    Ray has this for desktop systems only, and otherwise listens on all interfaces, whatever node
    address it is given.
    """
    from ray._private import ray_constants

    if ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR in os.environ:
        yield
        return
    before = ray_constants.ENABLE_RAY_CLUSTER
    # The constant for this process, which may have imported Ray long ago; the variable for those
    # that it starts.
    os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR], ray_constants.ENABLE_RAY_CLUSTER = (
        "0",
        False,
    )
    try:
        yield
    finally:
        del os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR]
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def token_at_home() -> Iterator[None]:
    """Refused: Ray, which makes itself a token when it first starts, has no home to keep it in."""
    token = Path.home() / ".ray" / "auth_token"
    try:
        yield
    except OSError as error:
        if error.filename is None or Path(error.filename) not in (token, *token.parents):
            raise
        raise Refused(
            f"Ray cannot keep its token in {token} ({error.strerror}); set HOME to a folder that"
            " can be written, or use --ray none"
        ) from error


def start(where: str, workers: int | None) -> None:
    """Start an embedded Ray ("local"), or join the one at an address. Refused: there is none, or it
    cannot keep its token.
    """
    import ray

    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if where == "local":
        # As many logical processors as there are actors: two real cores must not keep a third actor
        # waiting for ever.
        with loopback(), token_at_home():
            ray.init(
                address="local",
                num_cpus=max(4, 2 * (workers or cores())),
                object_store_memory=STORE_BYTES,
                include_dashboard=False,
                **quiet,
            )
        return
    advice = (
        "start one with ray start --head, set RAY_AUTH_MODE=token where it wants one, or use --ray"
        " local"
    )
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


def promised() -> set[str]:
    """Kinds of workers that nodes take which `ray up` told its autoscaler of, as far as this is its
    head.
    """
    import yaml

    try:
        types = yaml.safe_load(BOOTSTRAP.expanduser().read_text())["available_node_types"].values()
    except OSError:
        return set()
    return {kind for kind in KINDS for node in types if node.get("resources", {}).get(kind, 0) >= 1}


def nodes_of(coming: set[str], layout: str) -> list[dict[str, float]]:
    """Resources of each node, after a limited wait for a first one of each kind where any kind is
    there or coming.

    Refused: nodes are coming, and none of them came.
    """
    import ray

    seconds, began = STARTED_SECONDS if coming else JOINING_SECONDS, time.monotonic()
    said = False
    while True:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        here = {kind for kind in KINDS if any(node.get(kind, 0) >= 1 for node in nodes)}
        absent = " or ".join(kind for kind in KINDS if kind not in here)
        if layout == "together" or not absent or not here | coming:
            return nodes
        if time.monotonic() - began > seconds:
            if not here:
                raise Refused(
                    f"no node that takes {absent} workers came within {seconds} s; see ray status,"
                    " then give the same command again"
                )
            log.warning(
                "no node that takes %s workers came; those that are there do all the work", absent
            )
            return nodes
        if not said:
            log.warning("waiting up to %d s for a node that takes %s workers", seconds, absent)
            said = True
        time.sleep(1)


def marked(nodes: list[dict[str, float]], layout: str, device: str, workers: int | None):  # type: ignore[no-untyped-def]
    """Pools as the nodes ask for them by the resources "light" and "full", which say how many
    workers of each kind a node takes.

    nodes: resources of each. (light, full), or (the only kind that is asked for, None), which does
    all; or None where no kind is asked for or the layout leaves them be. Refused: they would not
    have one kind of device.
    """
    from tierscale.cluster.pool import PoolSpec

    homes = {
        kind: found
        for kind in KINDS
        if (found := [node for node in nodes if node.get(kind, 0) >= 1])
    }
    if layout == "together" or not homes:
        return None
    with_gpu = {bool(node.get("GPU", 0)) for kind in homes for node in homes[kind]}
    if device != "cpu" and (
        with_gpu == {True, False} or (device == "cuda" and with_gpu == {False})
    ):
        raise Refused(
            "some of the nodes that take light and full workers have no GPU; use --device cpu, or"
            " give a GPU to each"
        )
    kind_of_device = "cuda" if device != "cpu" and with_gpu == {True} else "cpu"
    size = {kind: sum(int(node[kind]) for node in homes[kind]) for kind in homes}
    if workers is not None:
        left = workers
        for kind in reversed(
            homes
        ):  # the dearest tier has half of them, and the light kind the rest
            size[kind] = min(
                size[kind], max(1, left // 2 if kind == "full" and len(homes) == 2 else left)
            )
            left -= size[kind]

    def spec(kind: str) -> PoolSpec:
        # The workers of a node share its GPUs evenly; the node with the smallest shares sets them
        # for all of its kind.
        share = min(
            1.0,
            *(
                node.get("GPU", 0) / (node.get("light", 0) + node.get("full", 0))
                for node in homes[kind]
            ),
        )
        # Ray counts shares in ten-thousandths; three thirds must not add up to more than one.
        gpus = int(share * 1e4) / 1e4 if kind_of_device == "cuda" else 0
        return PoolSpec(
            size[kind], kind_of_device, num_cpus=0, num_gpus=gpus, mark=kind, grows=workers is None
        )

    first, *other = map(spec, homes)
    return first, other[0] if other else None


def specs(resources: dict[str, float], layout: str, device: str, workers: int | None):  # type: ignore[no-untyped-def]
    """Pool sizes for a cluster's resources: (light, full or None when one pool does both).

    All workers that enlarge have one kind of device, so that a plan means the same bytes in every
    layout.
    """
    from tierscale.cluster.pool import PoolSpec

    gpus = int(resources.get("GPU", 0))
    if device == "cuda" and not gpus:
        raise Refused("the Ray cluster has no GPU; use --device cpu, or add one")
    nodes = sum(
        1 for name in resources if name.startswith("node:") and name != "node:__internal_head__"
    )
    # On one machine Ray was told more processors than there are, so that actors fit; the real ones
    # set the pace.
    told = max(1, int(resources.get("CPU", 1)))
    processors = workers or (min(cores(), told) if nodes <= 1 else max(1, told - nodes))
    if device != "cpu" and gpus:
        if layout == "together":
            return PoolSpec(gpus, "cuda", num_gpus=1), None
        # Two light workers to each full one keep a GPU fed while they read, stitch and write;
        # halves and quarters fit in any order.
        light = max(1, min(processors - gpus, 2 * gpus))
        return PoolSpec(light, "cuda", num_gpus=0.25), PoolSpec(gpus, "cuda", num_gpus=0.5)
    if layout == "split":
        full = max(1, processors // 2)
        return PoolSpec(max(1, processors - full), "cpu"), PoolSpec(full, "cpu")
    return PoolSpec(processors, "cpu"), None
