"""A small Ray cluster on this machine and the driver on it, to break."""

import contextlib
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import psutil

from benchmarks.chaos.driver import GONE_SECONDS, Driver, waited
from benchmarks.chaos.faulty.sitecustomize import DISKS, SICK

# What every node gets for its object store, in bytes.
STORE_BYTES = 80 << 20
# Workers that each node takes.
NODES = ({"light": 1, "full": 1}, {"light": 1})
# Seconds after which a call is late.
LATE = 4
# Dead nodes are noticed within seconds; by default it takes half a minute.
QUICK = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 1000,
    "health_check_failure_threshold": 3,
}


class Stage:
    """The cluster and the driver on it; what dies is brought back when it is asked for."""

    def __init__(self, context: ForkServerContext, mounts: bool, sick: Path) -> None:
        self.context, self.mounts, self.sick = context, mounts, sick
        self.cluster: Any = None
        self.nodes: list[Any] = []
        self.resident: Driver | None = None
        self.seen: set[psutil.Process] = set()
        # A Ray that this process has started already, and what it will start, is not looked at.
        self.others = {child for child in psutil.Process().children() if _of_ray(_words(child))}

    def driver(self) -> Driver:
        """The driver whose pool is kept."""
        if self.cluster is None:
            self._begin()
        if self.resident is not None and not self.resident.process.is_alive():
            self.resident = None
        if self.resident is None:
            self.resident = Driver(self.context, self.cluster.address)
        return self.resident

    def _begin(self) -> None:
        from ray.cluster_utils import Cluster

        head = {
            "num_cpus": 0,
            "object_store_memory": STORE_BYTES,
            "include_dashboard": False,
            "_system_config": QUICK,
        }
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.nodes = [self._node(kinds) for kinds in NODES]

    def _node(self, kinds: dict[str, int], room: int | None = None) -> Any:
        memory = psutil.virtual_memory()
        share = (
            0.99
            if room is None
            else min(0.99, (memory.total - memory.available + room) / memory.total)
        )
        limits = {"RAY_memory_usage_threshold": f"{share:.3f}"}
        return self.cluster.add_node(
            num_cpus=1, resources=kinds, object_store_memory=STORE_BYTES, env_vars=limits
        )

    def replace_node(self, index: int, room: int | None = None) -> None:
        """SIGKILL the raylet of a node, and put a new node in its place.

        room: bytes that may be taken on it before its memory monitor ends a worker.
        """
        self.driver()
        node = self.nodes[index]
        self.workers()
        os.kill(node.all_processes["raylet"][0].process.pid, signal.SIGKILL)
        # What is left of the node goes too; some of it has gone with the raylet.
        with contextlib.suppress(Exception):
            self.cluster.remove_node(node, allow_graceful=False)
        self.nodes[index] = self._node(NODES[index], room)

    def kill_all(self) -> None:
        """SIGKILL the driver and every process of the cluster."""
        self.workers()
        if self.resident is not None:
            self.resident.process.kill()
        # Agents too, which would need a minute to see that their raylet is gone.
        for pid in (
            *self._of_nodes(),
            *(victim.pid for victim in self.seen if victim.is_running()),
        ):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.shutdown()

    def workers(self) -> list[psutil.Process]:
        """Processes of actors on the cluster, those at work first."""
        workers = []
        for process in self._descendants():
            words = _words(process)
            if words and words[0].startswith("ray::Worker"):
                workers.append((not words[0].startswith("ray::Worker."), process.pid, process))
            if _of_ray(words):
                self.seen.add(process)
        return [process for _, _, process in sorted(workers, key=lambda entry: entry[:2])]

    def _descendants(self) -> Iterator[psutil.Process]:
        """All that this process and its children have started since the stage was built."""
        for child in psutil.Process().children():
            if child not in self.others:
                yield child
                with contextlib.suppress(psutil.NoSuchProcess):
                    yield from child.children(recursive=True)

    def _of_nodes(self) -> list[int]:
        """Process ids that the nodes themselves have started: raylets, GCS, dashboard."""
        nodes = [] if self.cluster is None else self.cluster.list_all_nodes()
        return [
            info.process.pid
            for node in nodes
            for infos in node.all_processes.values()
            for info in infos
        ]

    def _belonging(self) -> set[psutil.Process]:
        """Processes of the nodes that are up and of the driver, and all that these have started."""
        roots = self._of_nodes()
        if self.resident is not None:
            roots.append(self.resident.process.pid)
        processes: set[psutil.Process] = set()
        for pid in roots:
            with contextlib.suppress(psutil.NoSuchProcess):
                processes |= {(root := psutil.Process(pid)), *root.children(recursive=True)}
        return processes

    def orphans(self) -> list[int]:
        """Processes of Ray that outlived their node or driver, and surplus actors, after a wait."""
        expected = (
            sum(sum(kinds.values()) for kinds in NODES)
            if self.resident is not None and self.resident.process.is_alive()
            else 0
        )

        def left() -> list[int]:
            current = self.workers()
            alive = {
                process
                for process in self.seen
                if process.is_running() and process.status() != psutil.STATUS_ZOMBIE
            }
            return [process.pid for process in alive - self._belonging()] + [
                process.pid for process in current[expected:]
            ]

        waited(lambda: not left(), GONE_SECONDS)
        orphans = left()
        self.seen = {process for process in self.seen if process.is_running()}
        return orphans

    def dismiss(self) -> None:
        """End the driver."""
        if self.resident is not None:
            self.resident.close()
        self.resident = None

    def shutdown(self) -> None:
        """End driver and cluster."""
        self.dismiss()
        if self.cluster is not None:
            self.cluster.shutdown()
        self.cluster = None


def _words(process: psutil.Process) -> list[str]:
    """The command line of a process; none of one that is gone."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _of_ray(words: list[str]) -> bool:
    """Whether a command line is that of an actor, a raylet, a GCS or an agent."""
    return any(word.startswith("ray::") or "/ray/" in word for word in words[:4])


@contextmanager
def stage(mounts: bool, sick: Path) -> Iterator[Stage]:
    """A cluster with a driver; at its end, nothing of it is left.

    mounts: whether disks are mounted, or their faults injected. sick: file that tells which process
    makes wrong tiles.
    """
    import multiprocessing

    # Ray starts its workers with niceness 15: on a machine that has other work, none of it would
    # end.
    os.environ.update({"TIERSCALE_LATE_SECONDS": str(LATE), "RAY_worker_niceness": "0"})
    os.environ["PYTHONPATH"] = os.pathsep.join(
        [str(Path(__file__).with_name("faulty")), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    if not mounts:
        os.environ[DISKS] = "1"
    os.environ[SICK] = str(sick)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        [
            "tierscale.jobs.cli.main",
            "tierscale.pipeline.run.verify",
            "tierscale.pipeline.run.run",
            "tierscale.cluster.pool",
        ]
    )
    staged = Stage(context, mounts, sick)
    try:
        yield staged
    finally:
        staged.shutdown()
