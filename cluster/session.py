"""Where the work runs: threads here, a Ray of our own, or a Ray cluster that is already running."""

import ipaddress
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tierscale.cluster.sizing import KINDS, check_layout, specs_by_mark, specs_by_resources
from tierscale.pipeline.errors import Refused, one_line
from tierscale.pipeline.run.workers.pool import LocalPool, Pool, cores, device_here
from tierscale.pipeline.run.workers.worker import use_whole_process

# Shared memory of an embedded Ray: pieces of the shards in flight, with room to spare.
STORE_BYTES = 512 << 20
# Seconds to wait for a first node of each kind: one that the autoscaler starts, which boots and
# installs, and one that joins by itself.
STARTED_SECONDS, JOINING_SECONDS = 600, 60
# What `ray up` leaves on the head; Ray Tune looks for it there too.
BOOTSTRAP = Path("~/ray_bootstrap_config.yaml")
# What tells Ray to listen on all interfaces (1) or on this machine's own (0), and the release that
# was seen to heed it.
LISTENING = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
KNOWN_RAY = "2.60"
# Seconds in which a cluster at a given address has to answer.
ANSWER_SECONDS = 10
ADVICE = (
    "start one with ray start --head, set RAY_AUTH_MODE=token where it needs a token, or use --ray"
    " local"
)
QUIET: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}

log = logging.getLogger(__name__)


def where_submitted(where: str) -> str:
    """Where a job belongs whose options ask for `where` (see session).

    It starts no Ray of its own where there is one: submitted to a running cluster, which
    RAY_ADDRESS names, or called in a process that has called ray.init().
    """
    ray = sys.modules.get("ray")
    running = ray is not None and ray.is_initialized()
    return "auto" if where == "local" and (running or os.environ.get("RAY_ADDRESS")) else where


@contextmanager
def session(where: str, layout: str, device: str, workers: int | None = None) -> Iterator[Pool]:
    """A pool of workers for as long as the context lasts.

    where: "none" (threads in this process), "local" (an embedded Ray), or the address of a cluster.
    layout: "auto", "split" or "together". device: "auto", "cpu" or "cuda". workers: how many; None:
    as many as the machine or cluster can keep busy. Refused: no cluster answers, or the workers
    cannot start.
    """
    check_layout(layout)
    if where == "none":
        device = device_here(device)
        use_whole_process()
        with LocalPool(workers or (cores() if device == "cpu" else 1), device) as pool:
            yield pool
        return
    with _ray(where, layout, device, workers) as ray_pool:
        yield ray_pool


@contextmanager
def _ray(where: str, layout: str, device: str, workers: int | None) -> Iterator[Pool]:
    """A pool of Ray actors; Ray itself is started, and ended after, where it does not run yet."""
    # Ray takes seconds to import, which commands that do not need it should not pay.
    import ray

    from tierscale.cluster.pool import RayPool

    started_here = not ray.is_initialized()
    if started_here:
        # An embedded Ray has the devices of this process; on a cluster the workers' count, whatever
        # the driver has.
        device = device_here(device) if where == "local" else device
        start(where, workers)
    try:
        nodes = nodes_of(set() if where == "local" else expected_kinds(), layout)
        light, full = specs_by_mark(nodes, layout, device, workers) or specs_by_resources(
            ray.cluster_resources(), layout, device, workers
        )
        pool = RayPool(light, full)
        try:
            yield pool
        finally:
            pool.close()
    finally:
        if started_here:
            ray.shutdown()


def start(where: str, workers: int | None) -> None:
    """Start an embedded Ray ("local"), or join the cluster at an address.

    Refused: no cluster answers there, or Ray cannot store its token.
    """
    if where == "local":
        _start_embedded(workers)
    else:
        _join(where)


def _start_embedded(workers: int | None) -> None:
    import ray

    on_purpose = LISTENING in os.environ
    with loopback(), token_at_home():
        ray.init(
            address="local",
            # More logical processors than actors: two real cores must not keep a third actor
            # waiting for ever.
            num_cpus=max(4, 2 * (workers or cores())),
            object_store_memory=STORE_BYTES,
            include_dashboard=False,
            **QUIET,
        )
    if not on_purpose:
        check_loopback()


def _join(where: str) -> None:
    import ray

    address = os.environ.get("RAY_ADDRESS", where) if where == "auto" else where
    if address != "auto" and not answers(address.split("://")[-1]):
        raise Refused(f"no Ray cluster answers at {address} within {ANSWER_SECONDS} s; {ADVICE}")
    try:
        ray.init(address=where, **QUIET)
    except (ConnectionError, ValueError, RuntimeError, SystemExit) as error:
        raise Refused(f"no Ray cluster answers at {where} ({one_line(error)}); {ADVICE}") from error


@contextmanager
def loopback() -> Iterator[None]:
    """Make a Ray that is started within listen on this machine alone.

    Ray has this for desktop systems only, and otherwise listens on all interfaces, whatever node
    address it is given. LISTENING in the environment overrides it.
    """
    if LISTENING in os.environ:
        yield
        return
    # The variable for processes that are started. This one may have imported Ray long ago, which
    # reads the variable then: what it has read is changed where this release keeps it, and
    # check_loopback() finds out where another one does not.
    os.environ[LISTENING] = "0"
    constants = sys.modules.get("ray._private.ray_constants")
    before = getattr(constants, "ENABLE_RAY_CLUSTER", None)
    if before is not None:
        setattr(constants, "ENABLE_RAY_CLUSTER", False)  # noqa: B010 - a module without types
    try:
        yield
    finally:
        del os.environ[LISTENING]
        if before is not None:
            setattr(constants, "ENABLE_RAY_CLUSTER", before)  # noqa: B010


def check_loopback() -> None:
    """Refused, and Ray ended: others than this machine reach the Ray that was started."""
    import ray

    host = ray.get_runtime_context().gcs_address.rsplit(":", 1)[0].strip("[]")
    if not ipaddress.ip_address(host).is_loopback:
        ray.shutdown()
        raise Refused(
            f"Ray {ray.__version__} listens at {host}, which is not this machine alone; install"
            f" Ray {KNOWN_RAY}, allow it with {LISTENING}=1, or use --ray none"
        )


@contextmanager
def token_at_home() -> Iterator[None]:
    """Refuse in one sentence where Ray, which makes itself a token, has no home to store it in."""
    token = Path.home() / ".ray" / "auth_token"
    try:
        yield
    except OSError as error:
        if error.filename is None or Path(error.filename) not in (token, *token.parents):
            raise
        raise Refused(
            f"Ray cannot store its token in {token} ({error.strerror}); set HOME to a writable"
            " folder, or use --ray none"
        ) from error


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


def expected_kinds() -> set[str]:
    """Kinds of workers for which the autoscaler can start nodes, if this is `ray up`'s head."""
    import yaml

    try:
        types = yaml.safe_load(BOOTSTRAP.expanduser().read_text())["available_node_types"].values()
    except OSError:
        return set()
    return {kind for kind in KINDS for node in types if node.get("resources", {}).get(kind, 0) >= 1}


def nodes_of(expected: set[str], layout: str) -> list[dict[str, float]]:
    """Resources of each node, once there is one for every kind of worker, or after a limited wait.

    expected: kinds for which nodes are to come. There is no wait where no node offers or is to
    offer a kind. Refused: nodes are expected, and none of them came.
    """
    seconds, began = STARTED_SECONDS if expected else JOINING_SECONDS, time.monotonic()
    announced = False
    while True:
        nodes = _alive()
        offered = {kind for kind in KINDS if any(node.get(kind, 0) >= 1 for node in nodes)}
        missing = " or ".join(kind for kind in KINDS if kind not in offered)
        if layout == "together" or not missing or not offered | expected:
            return nodes
        if time.monotonic() - began > seconds:
            if not offered:
                raise Refused(
                    f"no node for {missing} workers came within {seconds} s; see ray status, then"
                    " run the same command again"
                )
            log.warning("no node for %s workers came; the other nodes do all the work", missing)
            return nodes
        if not announced:
            log.warning("waiting up to %d s for a node for %s workers", seconds, missing)
            announced = True
        time.sleep(1)


def _alive() -> list[dict[str, float]]:
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]
