"""One image to enlarge, what its caller passes to the run, and what the run collects."""

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from tierscale.pipeline.output.summary import STAGES
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.plan.plan import Plan
from tierscale.pipeline.routing.routes import TimeLimit
from tierscale.pipeline.run.prescan import Progress, silent
from tierscale.pipeline.storage.path_policy import check_lasting


@dataclass(frozen=True, slots=True)
class ImageJob:
    """One image to enlarge: where it is, where the result goes, and how.

    max_memory: bytes that all processes together may take, or None. keep_source: keep an ingested
    copy after the run. Which output of ours is replaced: overwrite, one that would be planned
    otherwise now, be it by this version's own defaults and weights; known, one for which something
    else is asked; renew, one for which the same is asked, of what the source held before.
    consolidated: put the metadata of all levels into those of the group, too.
    Refused: the output lies in a folder that Ray will delete.
    """

    source: str
    output: str
    options: Options = field(default_factory=Options)
    max_memory: int | None = None
    overwrite: bool = False
    keep_source: bool = False
    renew: bool = False
    known: bool = False
    consolidated: bool = False

    def __post_init__(self) -> None:
        check_lasting(self.output, "the output")
        # Workers on a cluster run in other folders: a relative path would mean another place there.
        if "://" not in self.output:
            object.__setattr__(self, "output", os.path.abspath(self.output))


def ignore_plan(plan: Plan) -> None:
    """What is done with a new plan by callers that do not ask for it."""


@dataclass(frozen=True, slots=True)
class Controls:
    """What a caller passes to a run.

    stop: set, the run finishes the shards under way and raises Interrupted. on_plan: called with
    the plan once it is stored. routes: tiers of the tiles, where an archive has chosen them.
    time_limit: of a deadline that many images share.
    """

    progress: Progress = silent
    stop: threading.Event = field(default_factory=threading.Event)
    on_plan: Callable[[Plan], None] = ignore_plan
    routes: np.ndarray | None = None
    time_limit: TimeLimit | None = None


class Timings:
    """Seconds by stage, notes, and the moment the run began."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._seconds = dict.fromkeys(STAGES, 0.0)
        self.notes: list[str] = []

    def elapsed(self) -> float:
        """Seconds since the run began."""
        return time.perf_counter() - self._began

    def add(self, stage: str, seconds: float) -> None:
        """Count seconds of a stage."""
        self._seconds[stage] += seconds

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the seconds of what is done in it."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - began)

    def finish(self) -> None:
        """From now on the total stands."""
        self._seconds["total"] = self.elapsed()

    @property
    def seconds(self) -> Mapping[str, float]:
        """Seconds by stage; the total up to now until the run is finished."""
        return {**self._seconds, "total": self._seconds["total"] or self.elapsed()}
