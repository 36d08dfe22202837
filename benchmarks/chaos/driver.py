"""Processes that carry out tierscale commands, and can be killed or have their clocks set wrong."""

import contextlib
import io
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any, NamedTuple

# Seconds after which a lease that was not renewed is stale.
LEASE = 12
# Seconds in which processes that are asked to end, or that lost their node, are gone.
GONE_SECONDS = 120


class Ended(NamedTuple):
    """How a command ended: exit code (minus the signal's number if killed), and its output."""

    code: int
    out: str
    err: str


def serve(pipe: Connection, address: str | None, clock_shift: Any, later: Path | None) -> None:
    """Carry out tierscale commands as they come.

    address: of a cluster, whose pool is kept from command to command; None: none. clock_shift: a
    shared number of seconds by which the clock of leases is wrong at this moment. later: where a
    later version, which this process then is, has its zoo; None: it is this version.
    """
    from benchmarks.chaos.later import become_later
    from tierscale.cluster import session
    from tierscale.jobs.cli import main as cli
    from tierscale.pipeline.run import run
    from tierscale.pipeline.storage import lease

    lease.LEASE_SECONDS = LEASE
    if later is not None:
        become_later(later)
    run.Lease = partial(lease.Lease, clock=lambda: time.time() + clock_shift.value)  # type: ignore[assignment, misc]
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
    """A process that carries out commands.

    It is forked from one that has imported everything, so that starting it costs little.
    """

    def __init__(
        self, context: ForkServerContext, address: str | None = None, later: Path | None = None
    ) -> None:
        self.pipe, theirs = context.Pipe()
        self.shift = context.Value("d", 0.0)
        self.process = context.Process(target=serve, args=(theirs, address, self.shift, later))
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


def waited(ready: Callable[[], bool], seconds: float, pause: float = 0.02) -> bool:
    """Whether it became so within that time."""
    until = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > until:
            return False
        time.sleep(pause)
    return True
