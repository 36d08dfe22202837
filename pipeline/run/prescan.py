"""The prescan of one image on a pool: its range, its tiles, its statistics."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from tierscale.models.kind import Judgement, KindNetwork
from tierscale.pipeline.errors import Interrupted, Refused
from tierscale.pipeline.geometry.grid import Rect, Span
from tierscale.pipeline.inference.difficulty import ROWS, blocks
from tierscale.pipeline.inference.kind import SMALLEST, places
from tierscale.pipeline.inference.statistics import Histogram, tier_settings
from tierscale.pipeline.plan.plan import Draft, ScoredPlan, Settings
from tierscale.pipeline.plan.source import PixelSource
from tierscale.pipeline.plan.stored import draft_fields
from tierscale.pipeline.plan.value_range import ValueRange
from tierscale.pipeline.routing.costs import full_cost
from tierscale.pipeline.routing.gains import Prediction, Probed, predict
from tierscale.pipeline.routing.probes import probe_count, probe_tiles
from tierscale.pipeline.routing.routes import TierTimings, TimeLimit
from tierscale.pipeline.run.scoring.scorer import TileScorer
from tierscale.pipeline.run.workers.bounded import bounded_map
from tierscale.pipeline.run.workers.pool import Handle, Pool, Task
from tierscale.pipeline.run.workers.prescan_tasks import (
    JudgeKind,
    MeasureRange,
    ProbeTile,
    ReadDifficulty,
    ScoreTiles,
    TimeTier,
)

# Called with a stage, how much of it is done, and its total.
Progress = Callable[[str, int, int], None]
# Rows of pixels whose range one task measures.
RANGE_ROWS = 512

MeasureBlocks = Callable[[Sequence[Span]], Sequence[tuple[float, float]]]


def silent(stage: str, done: int, total: int) -> None:
    """Progress for nobody."""


def find_value_range(draft: Draft, measure: MeasureBlocks) -> ValueRange:
    """Values that become 0 and 1: as asked, by the type for uint8, or measured over the image.

    measure: smallest and largest value of blocks of rows. It refuses NaN that nothing accounts for,
    so floats are measured in any case.
    """
    dtype, wanted, nodata = np.dtype(draft.dtype), draft.source.value_range, draft.source.nodata
    if wanted is None and dtype == np.uint8:
        return ValueRange(0.0, 255.0, 0.0, 255.0, nodata)
    extremes: Sequence[tuple[float, float]] = []
    if wanted is None or dtype.kind == "f":
        extremes = measure(blocks(draft.shape[1], RANGE_ROWS))
    if wanted is None:
        return ValueRange.measured(extremes, nodata)
    return ValueRange.fixed(*wanted, dtype, nodata)


@dataclass(frozen=True, slots=True)
class _Image:
    """What is known of an image when its tiles are scored. handle: of the draft."""

    draft: Draft
    handle: Handle[Draft]
    value_range: ValueRange
    settings: Settings


@dataclass(frozen=True, slots=True)
class Prescan:
    """The prescan of one image. What it finds depends on the draft and the pixels alone.

    stop: raises Interrupted when set.
    """

    pool: Pool
    pixels: PixelSource
    progress: Progress
    stop: threading.Event

    def judge(self, draft: Draft, network: KindNetwork, quality: int | None) -> Judgement | None:
        """What kind of picture the image is; None: it is too small to tell.

        quality: of a JPEG, by its tables, or None.
        """
        height, width = draft.shape[1:]
        if min(height, width) < SMALLEST:
            return None
        some = places(height, width)
        handles = self.pool.put(draft), self.pool.put(network)
        task = JudgeKind(handles[0], self.pixels, handles[1], some, quality)
        found: Sequence[Judgement] = self._each("kind", [task])
        return found[0]

    def scan(self, draft: Draft, scorer: TileScorer) -> ScoredPlan:
        """Range, settings and scores of an image. Refused: pixels that no network can enlarge."""
        handle = self.pool.put(draft)
        try:
            value_range = find_value_range(draft, partial(self._measure, draft, handle))
        except Refused as error:
            raise Refused(f"{draft.source.uri}: {error}") from error
        settings = tier_settings(draft, partial(self._read_difficulty, handle, value_range))
        image = _Image(draft, handle, value_range, settings)
        predicted = self._predict(image, scorer)
        return ScoredPlan(
            **draft_fields(draft),
            value_range=value_range,
            settings=settings,
            scores=predicted.errors.astype(np.float32),
            evidence=predicted.evidence,
        )

    def time(self, scored: ScoredPlan, limit: TimeLimit) -> TierTimings:
        """The speed of each tier when all workers are at work, by which a deadline is kept."""
        handle, width = self.pool.put(scored), self.pool.width
        tiers = range(len(scored.tiers))
        seconds = self._each(
            "speed", [TimeTier(handle, self.pixels, tier) for tier in tiers for _ in range(width)]
        )
        means = (float(np.mean(seconds[tier * width :][:width])) for tier in tiers)
        return TierTimings(limit, tuple(means))

    def _measure(
        self, draft: Draft, handle: Handle[Draft], rows: Sequence[Span]
    ) -> list[tuple[float, float]]:
        nodata = draft.source.nodata
        return self._each(
            "range", [MeasureRange(handle, self.pixels, span, nodata) for span in rows]
        )

    def _read_difficulty(
        self,
        handle: Handle[Draft],
        value_range: ValueRange,
        tier: int,
        places: Sequence[Sequence[Rect]],
    ) -> list[Histogram]:
        tasks = [ReadDifficulty(handle, self.pixels, value_range, tier, some) for some in places]
        return self._each("statistics", tasks)

    def _predict(self, image: "_Image", scorer: TileScorer) -> Prediction:
        """The errors that tiers will leave: by scores, what cards know of them, and probes."""
        draft, labels = image.draft, [tier.label for tier in image.draft.tiers]
        if draft.scoring == "none":
            zeros = np.zeros(draft.grid.tiles[0] * draft.grid.tiles[1])
            return predict(zeros, labels, None, kind=scorer.kind)
        scores = self._score(image)
        tiles = probe_tiles(scores, draft.grid, probe_count(draft, full_cost(draft)))
        probed = None
        if tiles:
            tasks = [
                ProbeTile(image.handle, self.pixels, image.value_range, image.settings, tile)
                for tile in tiles
            ]
            probed = Probed(tiles, np.stack(self._each("probes", tasks)))
        return predict(scores, labels, scorer.gains, probed, scorer.kind)

    def _score(self, image: "_Image") -> np.ndarray:
        """How hard all tiles are: (tiles,)."""
        tasks = [
            ScoreTiles(image.handle, self.pixels, image.value_range, span)
            for span in blocks(image.draft.grid.tiles[0], ROWS)
        ]
        return np.concatenate(self._each("score", tasks)).ravel()

    def _each(self, stage: str, tasks: Sequence[Task[Any]]) -> list[Any]:
        """Results of many tasks, in order."""
        return run_tasks(self.pool, tasks, self.stop, partial(self.progress, stage))


def run_tasks(
    pool: Pool,
    tasks: Sequence[Task[Any]],
    stop: threading.Event,
    progress: Callable[[int, int], None],
) -> list[Any]:
    """Results of many tasks, in order; a bounded number is under way. Interrupted: `stop` was set.

    progress: called with how many are done, and of how many.
    """
    results: list[Any] = [None] * len(tasks)

    def start(index: int) -> Future[Any]:
        return pool.submit(tasks[index])

    under_way = bounded_map(range(len(tasks)), start, 2 * pool.width, stop)
    for done, (index, future) in enumerate(under_way, start=1):
        results[index] = future.result()
        progress(done, len(tasks))
    if stop.is_set():
        raise Interrupted
    return results
