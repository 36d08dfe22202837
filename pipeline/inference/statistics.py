"""PCSR's automatic decision ("adaptive decision making", arXiv 2407.21448): thresholds of
difficulty, found by k-means and frozen.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from tierscale.models import registry as models
from tierscale.models.contract.upscaler import Placement, Upscaler
from tierscale.pipeline.geometry.grid import Rect, Span, tile_length
from tierscale.pipeline.inference import normalise as colour
from tierscale.pipeline.inference.shard import Read
from tierscale.pipeline.plan.plan import Plan

# As published: iterations counting the one that brings the centroids to their start, and the
# squared change that ends it.
ROUNDS = 20
SETTLED = 1e-4
# Side in input pixels of the places that are looked at, and the most of them: four million input
# pixels tell enough of any image.
PIECE = 32
MOST_PIECES = 4096
# Share of the tier's full cost that looking at a sample may take.
SAMPLE = 0.03
# Places in one call of a worker.
CALL = 16
# Steps of difficulty that are told apart, and the most values that are clustered.
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
        """Difficulty of each output pixel (N, H, W), 0..1, and the multiply-adds that it took
        (N,).
        """
        ...

    def looking(self, scale: Fraction) -> float:
        """Multiply-adds of difficulties() for each input pixel."""
        ...


@dataclass(frozen=True, slots=True)
class Seen:
    """Difficulties of some pixels. counts: (STEPS,), of values in equal steps from 0 to 1; low,
    high: least and largest input value.
    """

    counts: np.ndarray
    low: float
    high: float


Look = Callable[[int, list[list[Rect]]], Sequence[Seen]]


def given(plan: Plan, look: Look) -> tuple[dict[str, float], ...]:
    """What each tier of a plan with levels is given at every call, by name: its knob's setting, or
    its thresholds.

    look: what is seen of some lists of places by the tier of an index.
    """
    found: list[dict[str, float]] = []
    for index, tier in enumerate(plan.tiers):
        upscaler = models.load(tier.name) if tier.auto or tier.effort < 1 else None
        if upscaler is None:
            found.append({})
        elif tier.auto:
            assert isinstance(upscaler, Automatic)
            places = pieces(plan, upscaler, tier.cost)
            seen = look(
                index, [places[start : start + CALL] for start in range(0, len(places), CALL)]
            )
            cutoffs = upscaler.difficulty_cutoffs
            found.append(dict(zip(cutoffs, of(seen, len(cutoffs) + 1), strict=True)))
        else:
            assert upscaler.efforts is not None and upscaler.control is not None
            found.append({upscaler.control: upscaler.efforts.setting(tier.effort)})
    return tuple(found)


def pieces(plan: Plan, upscaler: Automatic, cost: float) -> list[Rect]:
    """The places to look at: all tiles for exact statistics, else a sample, the same for the same
    image and tiles.

    cost: multiply-adds of the tier for each input pixel; a sample takes at most SAMPLE of what the
    image takes, but one place at least.
    """
    exact = plan.policy["statistics"] == "exact"
    side = plan.tile if exact else tile_length(PIECE, plan.scale)
    height, width = plan.grid.size
    rows, columns = -(-height // side), -(-width // side)
    chosen: Iterable[int] = range(rows * columns)
    if not exact:
        assert upscaler.reach is not None
        each = upscaler.looking(plan.scale) * (side + 2 * upscaler.reach) ** 2
        count = min(rows * columns, MOST_PIECES, max(1, int(SAMPLE * cost * height * width / each)))
        chosen = sorted(
            np.random.default_rng(0)
            .choice(rows * columns, count, replace=False, shuffle=False)
            .tolist()
        )

    def span(index: int, length: int) -> Span:
        return Span(index * side, min((index + 1) * side, length))

    return [Rect(span(place // columns, height), span(place % columns, width)) for place in chosen]


def look_at(
    plan: Plan, read: Read, upscaler: Upscaler, places: Sequence[Rect], device: str
) -> Seen:
    """What an upscaler sees of some places of an image, each with the context that its pixels
    need.
    """
    assert (
        plan.levels is not None and isinstance(upscaler, Automatic) and upscaler.reach is not None
    )
    counts, extremes = np.zeros(STEPS, np.int64), [(np.inf, -np.inf)]
    (height, width), step = plan.grid.size, plan.scale.denominator
    for place in places:
        y, x = place.y.grown(upscaler.reach, height), place.x.grown(upscaler.reach, width)
        window = Rect(Span(y.start // step * step, y.stop), Span(x.start // step * step, x.stop))
        pixels = read(window.y.start, window.y.stop, window.x.start, window.x.stop)
        unit = colour.to_unit(pixels, plan.levels, colour.missing(pixels, plan.levels.nodata))
        planes = np.ascontiguousarray(colour.planes(unit, plan.colour, plan.alpha))
        where = Placement(
            plan.scale, plan.grid.size, ((window.y.start, window.x.start),) * len(planes)
        )
        with torch.inference_mode():
            found, _ = upscaler.difficulties(torch.from_numpy(planes).to(device), where)
        inner = plan.grid.hr(place).within(plan.grid.hr(window)).slices
        steps = (found[(slice(None), *inner)].cpu().numpy() * STEPS).astype(np.int64)
        counts += np.bincount(np.clip(steps, 0, STEPS - 1).ravel(), minlength=STEPS)
        extremes.append((float(planes.min()), float(planes.max())))
    return Seen(counts, min(low for low, _ in extremes), max(high for _, high in extremes))


def of(seen: Sequence[Seen], samplers: int) -> tuple[float, ...]:
    """Thresholds of what was seen; of a flat image none is exceeded, so that all its pixels are
    light.
    """
    if max(one.high for one in seen) - min(one.low for one in seen) < FLAT:
        return (1.0,) * (samplers - 1)
    counts = np.sum([one.counts for one in seen], axis=0)
    # Of more pixels than are clustered, each step keeps its share, and at least one.
    kept = -(-counts // max(1, -(-int(counts.sum()) // MOST_VALUES)))
    return thresholds(np.repeat((np.arange(STEPS) + 0.5) / STEPS, kept), samplers)


def thresholds(difficulties: np.ndarray, samplers: int = 2) -> tuple[float, ...]:
    """Difficulties, rising, above which a pixel is given to the next heavier sampler: samplers - 1
    of them.

    difficulties: of all pixels, any shape, 0..1. They are rescaled to 0..1 by their smallest and
    largest, and clustered; each threshold lies half way between two neighbouring groups. Where all
    are equal there is nothing to tell apart, and none exceeds the thresholds.
    """
    values = np.sort(difficulties.astype(np.float32), axis=None)
    low, high = float(values[0]), float(values[-1])
    if high <= low:
        return (high,) * (samplers - 1)
    scaled = (values - np.float32(low)) / np.float32(high - low)
    # The published code's single centroid for two clusters ends up at the mean and at 0 after one
    # round.
    start = (
        [float(scaled.mean(dtype=np.float64)), 0.0]
        if samplers == 2
        else np.linspace(0.0, 1.0, samplers).tolist()
    )
    ends = np.flatnonzero(np.diff(_cluster(scaled, start)))
    found = [float((values[end].astype(np.float64) + values[end + 1]) / 2) for end in ends]
    # An empty group leaves fewer borders than groups; the heaviest groups are then empty.
    return tuple(found + [high] * (samplers - 1 - len(found)))


def _cluster(values: np.ndarray, centroids: Sequence[float]) -> np.ndarray:
    """Group of each value by k-means from given centroids, as the labels were before the centroids'
    last change: (n,).
    """
    from fast_pytorch_kmeans import KMeans

    rounds = ROUNDS - 1 if len(centroids) == 2 else ROUNDS
    model = KMeans(n_clusters=len(centroids), mode="euclidean", max_iter=rounds, tol=SETTLED)
    start = torch.tensor(centroids, dtype=torch.float32)[:, None]
    return model.fit_predict(torch.from_numpy(values[:, None]), centroids=start).numpy()
