"""What it costs that nothing is lost when the power fails: `make bench-durability`.

A 4-megapixel photograph on one worker. Counted are the seconds in which the run looks at its shards
again, and those in which it waits for the disk (fsync) while nothing is computed; over the seconds
of the whole run, from one and the same run.
"""

import os
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import ParamSpec, TypeVar
from unittest import mock

import numpy as np
import tifffile

from benchmarks.overhead import photograph
from benchmarks.results import record
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.plan.policies import Full
from tierscale.pipeline.run.job import ImageJob
from tierscale.pipeline.run.run import upscale_image
from tierscale.pipeline.run.shards.recheck import Recheck
from tierscale.pipeline.run.workers import pool as pool_module
from tierscale.pipeline.run.workers.pool import LocalPool
from tierscale.pipeline.run.workers.worker import Turn

P = ParamSpec("P")
R = TypeVar("R")

REPEATS = 5
# The default of scale 4, its full tier everywhere, and its lightest everywhere, which is written
# faster than anything else.
KINDS = {
    "default": Options(scale=Fraction(4)),
    "full": Options(scale=Fraction(4), policy=Full()),
    "bicubic": Options(scale=Fraction(4), tiers=("bicubic",)),
}


class Losses:
    """Seconds that are lost: those of looking again, and of waiting while nobody computes."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._lock = threading.Lock()
        self._under_way = Counter[str]()
        self._since = time.perf_counter()

    def change(self, what: str, by: int) -> None:
        """Something begins (1) or ends (-1): "look", "wait" or "compute"."""
        with self._lock:
            now = time.perf_counter()
            waiting = self._under_way["wait"] and not self._under_way["compute"]
            if self._under_way["look"] or waiting:
                self.seconds += now - self._since
            self._since = now
            self._under_way[what] += by

    def during(self, what: str, function: Callable[P, R]) -> Callable[P, R]:
        """The function, watched."""

        def watched(*arguments: P.args, **more: P.kwargs) -> R:
            self.change(what, 1)
            try:
                return function(*arguments, **more)
            finally:
                self.change(what, -1)

        return watched

    def turn(self, end: Callable[[], None]) -> Turn:
        """A turn of a task, watched: while it lasts something is computed."""

        def ended() -> None:
            self.change("compute", -1)
            end()

        self.change("compute", 1)
        return Turn(ended)


def cost(source: Path, output: str, options: Options) -> float:
    """Share of a run's seconds that are lost."""
    losses = Losses()
    with ExitStack() as patches, LocalPool(1) as pool:
        patches.enter_context(mock.patch("os.fsync", losses.during("wait", os.fsync)))
        patches.enter_context(mock.patch.object(pool_module, "Turn", losses.turn))
        for name in ("sound", "close"):
            watched = losses.during("look", getattr(Recheck, name))
            patches.enter_context(mock.patch.object(Recheck, name, watched))
        began = time.perf_counter()
        upscale_image(ImageJob(str(source), output, options), pool)
        losses.change("wait", 0)
        return losses.seconds / (time.perf_counter() - began)


def record_shares(name: str, cost: Callable[[Path, str, Options], float]) -> None:
    """Measure a share of each kind of run some times, and record medians as `make bench-NAME`.

    cost: of a run of a source into an output.
    """
    figures: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="tierscale-bench-", dir=Path.cwd()) as folder:
        source = Path(folder) / "photo.tif"
        tifffile.imwrite(
            source, photograph(), tile=(256, 256), photometric="rgb", compression="zlib"
        )
        for kind, options in KINDS.items():
            shares = []
            for attempt in range(REPEATS):
                shares.append(cost(source, f"{folder}/{kind}-{attempt}.zarr", options))
                print(f"{kind}: {shares[-1]:.2%} of the run", flush=True)
            figures[kind] = {
                "median": round(float(np.median(shares)), 4),
                "largest": round(max(shares), 4),
            }
    record(name, f"make bench-{name}", figures)


if __name__ == "__main__":
    record_shares("durability", cost)
