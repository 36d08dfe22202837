"""What workers are asked before a plan is frozen: one frozen class a task, each safe to repeat."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tierscale.models.kind import Judgement, KindNetwork
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.formats.arrays.ingest import ingest
from tierscale.pipeline.formats.registry import open_image
from tierscale.pipeline.geometry.grid import Rect, Span
from tierscale.pipeline.inference import difficulty, statistics
from tierscale.pipeline.inference.kind import look
from tierscale.pipeline.inference.probe import probe
from tierscale.pipeline.inference.timing import seconds_per_pixel
from tierscale.pipeline.plan.options import Selection
from tierscale.pipeline.plan.plan import Draft, ScoredPlan, Settings
from tierscale.pipeline.plan.source import PixelSource
from tierscale.pipeline.plan.value_range import ValueRange
from tierscale.pipeline.run.workers.pool import Handle
from tierscale.pipeline.run.workers.worker import Worker


@dataclass(frozen=True, slots=True)
class CheckReady:
    """Whether the worker is up and can use its device."""

    def run(self, worker: Worker) -> bool:
        """True. Refused: it cannot."""
        worker.check_device()
        return True


@dataclass(frozen=True, slots=True)
class IngestSource:
    """Bring a source that cannot be read by windows into a zarr array at `path`."""

    uri: str
    selection: Selection
    path: str
    max_bytes: int | None

    def run(self, worker: Worker) -> float:
        """Seconds taken."""
        began = time.perf_counter()
        with open_image(self.uri, self.selection, self.max_bytes) as source:
            ingest(source, self.path, replaceable=True)
        return time.perf_counter() - began


@dataclass(frozen=True, slots=True)
class MeasureRange:
    """Find the smallest and largest value of some pixel rows."""

    draft: Handle[Draft]
    pixels: PixelSource
    rows: Span
    nodata: float | None

    def run(self, worker: Worker) -> tuple[float, float]:
        """Smallest and largest; (inf, -inf) where all is without data."""
        draft = self.draft.get()
        read = worker.reader(draft, self.pixels)
        return difficulty.measure(read, self.rows, draft.shape[2], self.nodata, draft.alpha)


@dataclass(frozen=True, slots=True)
class ScoreTiles:
    """Tell how hard the tiles in some tile rows are."""

    draft: Handle[Draft]
    pixels: PixelSource
    value_range: ValueRange
    rows: Span

    def run(self, worker: Worker) -> np.ndarray:
        """(rows, columns)."""
        draft = self.draft.get()
        read = worker.reader(draft, self.pixels)
        network = None if draft.scorer is None else worker.network(draft.scorer)
        return difficulty.score(
            draft, self.value_range, read, self.rows, network, worker.device.name
        )


@dataclass(frozen=True, slots=True)
class ProbeTile:
    """Enlarge one tile by all tiers and compare their results."""

    draft: Handle[Draft]
    pixels: PixelSource
    value_range: ValueRange
    settings: Settings
    tile: int

    def run(self, worker: Worker) -> np.ndarray:
        """Mean squared differences from the full tier's result, (tiers,)."""
        draft = self.draft.get()
        engine = worker.engine(draft, self.settings, range(len(draft.tiers)))
        read = worker.reader(draft, self.pixels)
        return probe(engine, self.value_range, read, self.tile)


@dataclass(frozen=True, slots=True)
class ReadDifficulty:
    """Read what a tier that decides by statistics of the image finds at some places."""

    draft: Handle[Draft]
    pixels: PixelSource
    value_range: ValueRange
    tier: int
    places: Sequence[Rect]

    def run(self, worker: Worker) -> statistics.Histogram:
        """The difficulties there."""
        draft = self.draft.get()
        upscaler = worker.engine(draft, (), {self.tier}).upscalers[self.tier]
        if not isinstance(upscaler, statistics.Automatic):
            raise Refused(f"{draft.tiers[self.tier].label} does not decide by statistics")
        read = worker.reader(draft, self.pixels)
        return statistics.measure_difficulty(
            draft, self.value_range, read, upscaler, self.places, worker.device.name
        )


@dataclass(frozen=True, slots=True)
class JudgeKind:
    """Tell what kind of picture an image of 8 bits is."""

    draft: Handle[Draft]
    pixels: PixelSource
    network: Handle[KindNetwork]
    places: Sequence[Rect]
    quality: int | None

    def run(self, worker: Worker) -> Judgement:
        """The kind, and what each family is expected to leave wrong."""
        draft = self.draft.get()
        read = worker.reader(draft, self.pixels)
        return look(draft, read, self.network.get(), self.places, self.quality)


@dataclass(frozen=True, slots=True)
class TimeTier:
    """Measure how long a tier takes."""

    scored: Handle[ScoredPlan]
    pixels: PixelSource
    tier: int

    def run(self, worker: Worker) -> float:
        """Seconds for each input pixel."""
        scored = self.scored.get()
        engine = worker.engine(scored, scored.settings, {self.tier})
        read = worker.reader(scored, self.pixels)
        return seconds_per_pixel(engine, scored.value_range, read, self.tier)
