"""The looks that workers take at an image before its plan is frozen: its range, its tiles, its
statistics.
"""

import threading
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tierscale.pipeline.errors import Refused
from tierscale.pipeline.geometry.grid import Rect, Span
from tierscale.pipeline.inference import statistics as automatic
from tierscale.pipeline.inference.difficulty import SCOUT_ROWS, blocks
from tierscale.pipeline.plan.plan import Plan
from tierscale.pipeline.routing.routes import TierTimings, TimeLimit
from tierscale.pipeline.run import draft as prepare
from tierscale.pipeline.run.inspect import SourceInfo
from tierscale.pipeline.run.pool import Pool
from tierscale.pipeline.run.tasks import Progress, each


@dataclass(frozen=True, slots=True)
class Prepass:
    """The pre-pass of one image on a pool. What it finds depends on the draft and the pixels alone,
    but for speeds, which a deadline takes.

    stop: raises Interrupted when set.
    """

    pool: Pool
    progress: Progress
    stop: threading.Event

    def look(
        self, draft: Plan, found: SourceInfo, asked: tuple[float, float] | None
    ) -> tuple[Plan, np.ndarray]:
        """The plan with levels and whole-image values, and the scores to route it by (tiles,
        tiers). asked: range of values, or None.
        """
        try:
            levels = prepare.levels(
                draft, asked, found.nodata, lambda rows: self._measure(draft, rows, found)
            )
        except Refused as error:
            raise Refused(f"{found.uri}: {error}") from error
        scored = replace(draft, levels=levels)
        scores = self._score(scored)
        return (
            replace(
                scored, given=automatic.given(scored, lambda *asked: self._look(scored, *asked))
            ),
            scores,
        )

    def time(self, plan: Plan, clock: TimeLimit) -> TierTimings:
        """What a deadline is kept by: the speed of each tier when all workers are at work."""
        handle, width = self.pool.put(plan), self.pool.width
        taken = self._each(
            "speed",
            [("speed", handle, tier) for tier in range(len(plan.tiers)) for _ in range(width)],
        )
        return TierTimings(
            clock,
            tuple(float(np.mean(taken[tier * width :][:width])) for tier in range(len(plan.tiers))),
        )

    def _measure(
        self, draft: Plan, rows: list[Span], found: SourceInfo
    ) -> list[tuple[float, float]]:
        """Smallest and largest value of some blocks of rows."""
        handle = self.pool.put(draft)
        return self._each("range", [("measure", handle, span, found.nodata) for span in rows])

    def _each(self, stage: str, calls: list[tuple[Any, ...]]) -> list[Any]:
        """Results of many calls, in order."""
        return each(
            self.pool, calls, lambda done, total: self.progress(stage, done, total), self.stop
        )

    def _look(self, plan: Plan, tier: int, places: list[list[Rect]]) -> list[automatic.Seen]:
        """What a tier sees of some lists of places."""
        handle = self.pool.put(plan)
        return self._each("statistics", [("look", handle, tier, some) for some in places])

    def _score(self, plan: Plan) -> np.ndarray:
        """Predicted errors of all tiles: (tiles, tiers)."""
        rows, columns = plan.grid.tiles
        tiers = len(plan.tiers)
        if plan.scores == "none":
            return np.zeros((rows * columns, tiers), np.float32)
        handle = self.pool.put(plan)
        scores = self._each("score", [("score", handle, span) for span in blocks(rows, SCOUT_ROWS)])
        return np.concatenate(scores).reshape(rows * columns, tiers)
