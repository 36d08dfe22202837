"""PCSR's automatic decision: cutoffs of difficulty, found by k-means and frozen in the plan.

"Adaptive decision making" of Jeong, Kim, Jo and Kim 2024, arXiv 2407.21448.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from tierscale.models import registry
from tierscale.models.contract.upscaler import Placement
from tierscale.pipeline.geometry.grid import Rect, Span, tile_length
from tierscale.pipeline.inference.normalise import Read, missing, rgb_batch, straight_unit
from tierscale.pipeline.plan.plan import Draft, Settings
from tierscale.pipeline.plan.tiers import ENDLESS_REACH
from tierscale.pipeline.plan.value_range import ValueRange

# As upstream: iterations counting the one that brings the centroids to their start, and the
# squared change that ends it.
ROUNDS = 20
SETTLED = 1e-4
# Side in input pixels of the places that are looked at, and the most of them: four million input
# pixels tell enough of any image.
PIECE = 32
MOST_PIECES = 4096
# Share of the tier's full cost that measuring a sample may take.
SAMPLE = 0.03
# Places in one call of a worker.
CALL = 16
# Steps of difficulty that are distinguished, and the most values that are clustered.
STEPS = 1 << 16
MOST_VALUES = 1 << 22
# An image whose values differ by less is flat.
FLAT = 0.5 / 255


@runtime_checkable
class Automatic(Protocol):
    """What an upscaler offers, beside the contract, that can decide by the statistics of an image.

    difficulty_cutoffs: names of the settings that hold cutoffs of difficulty, rising.
    """

    reach: int | None
    difficulty_cutoffs: tuple[str, ...]

    def difficulties(self, windows: Tensor, place: Placement) -> tuple[Tensor, Tensor]:
        """Difficulty of each output pixel (N, H, W), 0..1, and its multiply-adds (N,)."""
        ...

    def difficulty_cost(self, scale: Fraction) -> float:
        """Multiply-adds of difficulties() for each input pixel."""
        ...


@dataclass(frozen=True, slots=True)
class Histogram:
    """Difficulties of some pixels.

    counts: (STEPS,), values in equal steps from 0 to 1. low, high: least and largest input value.
    """

    counts: np.ndarray
    low: float
    high: float


# Reads the difficulties that the tier of an index finds at each of some lists of places.
ReadDifficulty = Callable[[int, list[list[Rect]]], Sequence[Histogram]]


def tier_settings(draft: Draft, read_difficulty: ReadDifficulty) -> Settings:
    """The settings of each tier at every call, by name: that of its control, or its cutoffs."""
    return tuple(
        _settings_of(draft, index, read_difficulty) if tier.auto or tier.effort < 1 else {}
        for index, tier in enumerate(draft.tiers)
    )


def _settings_of(draft: Draft, index: int, read_difficulty: ReadDifficulty) -> dict[str, float]:
    tier = draft.tiers[index]
    upscaler = registry.load_weights(tier.name, weights=tier.weights).upscaler
    if tier.auto and isinstance(upscaler, Automatic):
        places = sample_places(draft, upscaler, tier.cost)
        calls = [places[start : start + CALL] for start in range(0, len(places), CALL)]
        histograms = read_difficulty(index, calls)
        cutoffs = cutoffs_of(histograms, len(upscaler.difficulty_cutoffs) + 1)
        return dict(zip(upscaler.difficulty_cutoffs, cutoffs, strict=True))
    if upscaler.control is None or upscaler.efforts is None:
        raise ValueError(f"{tier.name} has no setting for {tier.label}; write {tier.name} alone")
    return {upscaler.control: upscaler.efforts.setting(tier.effort)}


def sample_places(draft: Draft, upscaler: Automatic, cost: float) -> list[Rect]:
    """The places to measure: all tiles for exact statistics, else a seeded sample of the image.

    cost: multiply-adds of the tier for each input pixel. A sample takes at most SAMPLE of what the
    image takes, but holds one place at least.
    """
    exact = draft.statistics == "exact"
    side = draft.tile if exact else tile_length(PIECE, draft.scale)
    height, width = draft.grid.size
    rows, columns = -(-height // side), -(-width // side)
    chosen: Iterable[int] = range(rows * columns)
    if not exact:
        each = upscaler.difficulty_cost(draft.scale) * (side + 2 * _context(upscaler)) ** 2
        count = min(rows * columns, MOST_PIECES, max(1, int(SAMPLE * cost * height * width / each)))
        random = np.random.default_rng(0)
        chosen = sorted(random.choice(rows * columns, count, replace=False, shuffle=False).tolist())

    def span(index: int, length: int) -> Span:
        return Span(index * side, min((index + 1) * side, length))

    return [Rect(span(place // columns, height), span(place % columns, width)) for place in chosen]


def _context(upscaler: Automatic) -> int:
    """Input pixels around a place that its difficulties depend on."""
    return ENDLESS_REACH if upscaler.reach is None else upscaler.reach


def measure_difficulty(
    draft: Draft,
    value_range: ValueRange,
    read: Read,
    upscaler: Automatic,
    places: Sequence[Rect],
    device: str = "cpu",
) -> Histogram:
    """Difficulties at some places, each looked at with the context that its pixels need."""
    counts, lows, highs = np.zeros(STEPS, np.int64), [np.inf], [-np.inf]
    (height, width), step, context = draft.grid.size, draft.scale.denominator, _context(upscaler)
    for place in places:
        y, x = place.y.grown(context, height), place.x.grown(context, width)
        window = Rect(Span(y.start // step * step, y.stop), Span(x.start // step * step, x.stop))
        pixels = read(window.y.start, window.y.stop, window.x.start, window.x.stop)
        mask = missing(pixels, value_range.nodata)
        unit = straight_unit(pixels, value_range, draft.alpha, mask)
        colours = rgb_batch(unit, draft.colour)
        origins = ((window.y.start, window.x.start),) * len(colours)
        placement = Placement(draft.scale, draft.grid.size, origins)
        with torch.inference_mode():
            values, _ = upscaler.difficulties(torch.from_numpy(colours).to(device), placement)
        inner = draft.grid.hr(place).within(draft.grid.hr(window)).slices
        steps = (values[(slice(None), *inner)].cpu().numpy() * STEPS).astype(np.int64)
        counts += np.bincount(np.clip(steps, 0, STEPS - 1).ravel(), minlength=STEPS)
        lows.append(float(colours.min()))
        highs.append(float(colours.max()))
    return Histogram(counts, min(lows), max(highs))


def cutoffs_of(histograms: Sequence[Histogram], samplers: int) -> tuple[float, ...]:
    """Cutoffs for the difficulties of an image; a flat image exceeds none, and is all light."""
    if max(one.high for one in histograms) - min(one.low for one in histograms) < FLAT:
        return (1.0,) * (samplers - 1)
    counts = np.sum([one.counts for one in histograms], axis=0)
    # Of more pixels than are clustered, each step keeps its share, and at least one.
    kept = -(-counts // max(1, -(-int(counts.sum()) // MOST_VALUES)))
    return difficulty_cutoffs(np.repeat((np.arange(STEPS) + 0.5) / STEPS, kept), samplers)


def difficulty_cutoffs(difficulties: np.ndarray, samplers: int = 2) -> tuple[float, ...]:
    """Difficulties, rising, above which a pixel is given to the next heavier sampler.

    (samplers - 1,). difficulties: of all pixels, any shape, 0..1. They are rescaled to 0..1 by
    their smallest and largest, and clustered; each cutoff lies half way between two neighbouring
    groups. Where all are equal there is nothing to tell apart, and none exceeds the cutoffs.
    """
    values = np.sort(difficulties.astype(np.float32), axis=None)
    low, high = float(values[0]), float(values[-1])
    if high <= low:
        return (high,) * (samplers - 1)
    scaled = (values - np.float32(low)) / np.float32(high - low)
    # The upstream code's single centroid for two clusters ends up at the mean and at 0 after one
    # round.
    start = np.linspace(0.0, 1.0, samplers).tolist()
    if samplers == 2:
        start = [float(scaled.mean(dtype=np.float64)), 0.0]
    ends = np.flatnonzero(np.diff(_cluster(scaled, start)))
    found = [float((values[end].astype(np.float64) + values[end + 1]) / 2) for end in ends]
    # An empty group leaves fewer borders than groups; the heaviest groups are then empty.
    return tuple(found + [high] * (samplers - 1 - len(found)))


def _cluster(values: np.ndarray, centroids: Sequence[float]) -> np.ndarray:
    """Group of each value by k-means from given centroids, before their last change: (n,)."""
    from fast_pytorch_kmeans import KMeans

    rounds = ROUNDS - 1 if len(centroids) == 2 else ROUNDS
    model = KMeans(n_clusters=len(centroids), mode="euclidean", max_iter=rounds, tol=SETTLED)
    start = torch.tensor(centroids, dtype=torch.float32)[:, None]
    return model.fit_predict(torch.from_numpy(values[:, None]), centroids=start).numpy()
