"""Progress on stderr: a bar with the time left on a terminal, a line every few seconds
elsewhere.
"""

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

# Seconds between lines where there is no terminal.
LINE_EVERY = 10.0


class Bar:
    """Called by runs as progress(stage, done, total); several runs may share it. quiet: show
    nothing.
    """

    def __init__(self, quiet: bool = False, label: str = "") -> None:
        self.quiet, self.label = quiet, label
        self.live = sys.stderr.isatty() and not quiet
        self._lock = threading.Lock()
        self._began: dict[str, float] = {}
        self._said = time.monotonic()
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
        if self.live:
            self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.live:
            self._progress.stop()

    def __call__(self, stage: str, done: int, total: int) -> None:
        if self.quiet:
            return
        with self._lock:
            if self.live:
                if stage not in self._tasks:
                    self._tasks[stage] = self._progress.add_task(stage, total=total, completed=done)
                self._progress.update(self._tasks[stage], completed=done, total=total)
            else:
                self._line(stage, done, total)

    def _line(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        self._began.setdefault(stage, now)
        if now - self._said < LINE_EVERY and done < total:
            return
        if done == total and now - self._began[stage] < 2:
            return
        self._said = now
        taken = now - self._began[stage]
        left = (
            f"about {taken / done * (total - done):.0f} s left"
            if 0 < done < total
            else f"{taken:.0f} s"
        )
        print(f"{self.label}{stage}: {done} of {total}, {left}", file=sys.stderr, flush=True)
