"""Progress on stderr: a bar on a terminal, a line every few seconds elsewhere."""

import sys
import threading
import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from tierscale.jobs.cli.terminal import say

# Seconds between lines where there is no terminal.
LINE_EVERY = 10.0
# Stages get no line before so many seconds, and none if they end sooner.
SHORT = 2.0


class Bar:
    """Called by runs as progress(stage, done, total); several runs may share it.

    A stage is a word of ours, never a name from outside. quiet: show nothing. On a terminal nothing
    is drawn before the first stage, so that a refusal is the only thing to be seen.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.live = sys.stderr.isatty() and not quiet
        self._lock = threading.Lock()
        self._began: dict[str, float] = {}
        self._last_line = time.monotonic()
        self._tasks: dict[str, TaskID] = {}
        columns = (
            TextColumn("{task.description:>9}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=Console(stderr=True))

    def __enter__(self) -> "Bar":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._tasks:
            self._progress.stop()

    def __call__(self, stage: str, done: int, total: int) -> None:
        if self.quiet:
            return
        with self._lock:
            if self.live:
                self._draw(stage, done, total)
            else:
                self._line(stage, done, total)

    def _draw(self, stage: str, done: int, total: int) -> None:
        if not self._tasks:
            self._progress.start()
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=total, completed=done)
        self._progress.update(self._tasks[stage], completed=done, total=total)

    def _line(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        self._began.setdefault(stage, now)
        if now - self._last_line < LINE_EVERY and done < total:
            return
        seconds = now - self._began[stage]
        if seconds < SHORT:
            return
        self._last_line = now
        left = (
            f"about {seconds / done * (total - done):.0f} s left"
            if 0 < done < total
            else f"{seconds:.0f} s"
        )
        say(f"{stage}: {done} of {total}, {left}")
