"""A small Ray cluster on this machine and drivers on it, to break: what `make chaos` plays on."""

import contextlib
import io
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from benchmarks.faulty.sitecustomize import DISK

# What every node gets for its object store, in bytes.
STORE_BYTES = 80 << 20
# Workers that each node takes.
NODES = ({"light": 1, "full": 1}, {"light": 1})
# Ballast leaves this much of the machine's memory to others.
SPARE_BYTES = 3 << 30
# Seconds after which a call is late, and after which a lease that was not renewed is stale.
LATE, LEASE = 4, 12
# Seconds in which processes that are told to go, or that lost their node, are gone.
GONE_SECONDS = 120
# Dead nodes are noticed within seconds; by default it takes half a minute.
QUICK = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 1000,
    "health_check_failure_threshold": 3,
}


class Ended(NamedTuple):
    """How a command ended: exit code (minus the signal's number where it was killed), and what it
    printed.
    """

    code: int
    out: str
    err: str


def serve(pipe: Connection, address: str | None, shift: Any) -> None:
    """Carry out tierscale commands as they come. address: of a cluster, whose pool is kept from
    command to command; None: none.

    shift: shared number of seconds by which the clock of leases is wrong at this moment.
    """
    from tierscale.cluster import session
    from tierscale.jobs.cli import main as cli
    from tierscale.pipeline.run import run
    from tierscale.pipeline.storage import lease

    lease.LEASE_SECONDS = LEASE
    run.Lease = partial(lease.Lease, clock=lambda: time.time() + shift.value)  # type: ignore[assignment, misc]
    with contextlib.ExitStack() as stack:
        if address is not None:
            pool = stack.enter_context(session.session(address, "auto", "cpu"))
            session.session = lambda *given: contextlib.nullcontext(pool)  # type: ignore[assignment, misc]
        pipe.send("ready")
        while (arguments := pipe.recv()) is not None:
            out, err, code = io.StringIO(), io.StringIO(), 0
            with redirect_stdout(out), redirect_stderr(err):
                try:
                    cli.main(arguments)
                except SystemExit as ended:
                    code = int(ended.code or 0)
            pipe.send(Ended(code, out.getvalue(), err.getvalue()))


class Driver:
    """A process that carries out commands. It is forked from one that has imported everything, so
    that starting it costs little.
    """

    def __init__(self, context: ForkServerContext, address: str | None = None) -> None:
        self.pipe, theirs = context.Pipe()
        self.shift = context.Value("d", 0.0)
        self.process = context.Process(target=serve, args=(theirs, address, self.shift))
        self.process.start()
        theirs.close()
        assert self._answer(240) == "ready"

    def begin(self, *arguments: object) -> None:
        """Start a command."""
        self.pipe.send([str(argument) for argument in arguments])

    def busy(self) -> bool:
        """Whether the command is still at work."""
        return self.process.is_alive() and not self.pipe.poll(0)

    def jump(self, seconds: float) -> None:
        """Set the clock of its leases wrong by so much, from this moment on."""
        self.shift.value = seconds

    def end(self, seconds: float = 240) -> Ended:
        """Wait for the command. TimeoutError: it does not end."""
        answer = self._answer(seconds)
        return answer if isinstance(answer, Ended) else Ended(answer, "", "")

    def _answer(self, seconds: float) -> Any:
        """What the process sends, or its exit code if it ended without a word."""
        if not self.pipe.poll(seconds):
            raise TimeoutError(f"no answer in {seconds:.0f} s")
        try:
            return self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.process.join(GONE_SECONDS)
            return self.process.exitcode

    def close(self) -> None:
        """End the process, politely if it listens."""
        with contextlib.suppress(OSError):
            self.pipe.send(None)
        self.process.join(GONE_SECONDS)
        self.process.kill()
        self.process.join()
        self.pipe.close()


class Stage:
    """The cluster and the driver on it; what dies is brought back when it is asked for."""

    def __init__(self, context: ForkServerContext, mounts: bool) -> None:
        self.context, self.mounts = context, mounts
        self.cluster: Any = None
        self.nodes: list[Any] = []
        self.resident: Driver | None = None
        self.seen: set[psutil.Process] = set()

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
        """SIGKILL the raylet of a node, and put a new node in its place. room: bytes that may be
        taken on it before its memory monitor ends a worker.
        """
        self.driver()
        node = self.nodes[index]
        self.workers()
        os.kill(node.all_processes["raylet"][0].process.pid, signal.SIGKILL)
        with contextlib.suppress(
            Exception
        ):  # what is left of the node goes too; some of it has gone with the raylet
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
        found = []
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                words = process.cmdline()
                if words and words[0].startswith("ray::Worker"):
                    found.append((not words[0].startswith("ray::Worker."), process.pid, process))
                if any(
                    word.startswith("ray::") or "/ray/" in word for word in words[:4]
                ):  # raylet, GCS and agents too
                    self.seen.add(process)
        return [process for _, _, process in sorted(found, key=lambda entry: entry[:2])]

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
        found: set[psutil.Process] = set()
        for pid in roots:
            with contextlib.suppress(psutil.NoSuchProcess):
                found |= {(root := psutil.Process(pid)), *root.children(recursive=True)}
        return found

    def orphans(self) -> list[int]:
        """Processes of Ray that outlived their node or their driver, and actors beyond those of the
        driver, after some time to go.
        """
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
        found = left()
        self.seen = {process for process in self.seen if process.is_running()}
        return found

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


def waited(ready: Callable[[], bool], seconds: float, pause: float = 0.02) -> bool:
    """Whether it became so within that time."""
    until = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > until:
            return False
        time.sleep(pause)
    return True


def ballast(enough: Callable[[], bool]) -> None:
    """Take memory piece by piece until it is enough, or the machine has none to spare; then give it
    back.
    """
    held = []
    while not enough() and psutil.virtual_memory().available > SPARE_BYTES:
        held.append(bytearray(os.urandom(1 << 20) * 64))
    waited(enough, 2)


def mountable() -> bool:
    """Whether file systems may be mounted here."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            subprocess.run(
                ["mount", "-t", "tmpfs", "tmpfs", folder], check=True, capture_output=True
            )
        except (OSError, subprocess.CalledProcessError):
            return False
        subprocess.run(["umount", "-l", folder], check=True, capture_output=True)
        return True


class Disk:
    """A file system of its own, for as long as the context lasts: in memory, or where none may be
    mounted a folder that Python's calls take for one (benchmarks/faulty). size: bytes.
    """

    def __init__(self, path: Path, size: int, mounts: bool) -> None:
        self.path, self.size, self.mounts = path, size, mounts

    def __enter__(self) -> "Disk":
        self.path.mkdir()
        if self.mounts:
            subprocess.run(
                ["mount", "-t", "tmpfs", "-o", f"size={self.size}", "tmpfs", self.path],
                check=True,
                capture_output=True,
            )
        else:
            self._tell(str(self.size))
        return self

    def resize(self, size: int) -> None:
        """Change how many bytes fit."""
        self._remount(f"size={size}", str(size))

    def lock(self) -> None:
        """Make it read-only."""
        self._remount("ro", "ro")

    def unlock(self) -> None:
        """Let it be written again."""
        self._remount("rw", str(self.size))

    def _remount(self, options: str, told: str) -> None:
        """Change how it is mounted; while a file is being written it cannot become read-only."""
        if not self.mounts:
            self._tell(told)
            return

        def done() -> bool:
            return (
                subprocess.run(
                    ["mount", "-o", f"remount,{options}", self.path], capture_output=True
                ).returncode
                == 0
            )

        assert waited(done, 30), f"cannot remount {self.path} with {options}"

    def _tell(self, told: str) -> None:
        """Put what the folder can take into its file, in one piece."""
        beside = self.path.with_suffix(".told")
        beside.write_text(told)
        beside.replace(self.path / DISK)

    def __exit__(self, *error: object) -> None:
        if self.mounts:
            subprocess.run(["umount", "-l", self.path], check=True, capture_output=True)


@contextmanager
def stage(mounts: bool) -> Iterator[Stage]:
    """A stage; at its end, nothing of it is left. mounts: whether disks are mounted, or their
    faults injected.
    """
    import multiprocessing

    # Ray starts its workers with niceness 15: on a machine that has other work, none of it would
    # end.
    os.environ.update({"TIERSCALE_LATE_SECONDS": str(LATE), "RAY_worker_niceness": "0"})
    if not mounts:
        os.environ["PYTHONPATH"] = os.pathsep.join(
            [str(Path(__file__).with_name("faulty")), *filter(None, [os.environ.get("PYTHONPATH")])]
        )
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        [
            "tierscale.jobs.cli.main",
            "tierscale.pipeline.run.verify",
            "tierscale.pipeline.run.run",
            "tierscale.cluster.pool",
        ]
    )
    made = Stage(context, mounts)
    try:
        yield made
    finally:
        made.shutdown()
