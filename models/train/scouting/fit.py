"""Fitting the scout to what tiers left on photos: `tierscale scout fit`.

To be done again when their weights change.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tierscale.models.scout import CELL, STATISTICS, Scout, statistics
from tierscale.models.train.scouting.observe import Sample

# Added to errors before they are compared: what is below (60 dB) is never worth a heavier tier.
SMALL = 1e-6
# Share of what was learnt that a fitted scout keeps. Measured by fitting to half of the photos and
# judging on the other half: all of it captures less of a perfect router's gain, because few photos
# hold most of the error that can be saved.
KEEP = 0.7
# Side in cells of the tiles that are fitted to, and of their parts that are too: predictions must
# hold for tiles of several sizes.
SIDE, PARTS = 16, (16, 8)


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast to fit.

    steps, seconds: when to stop, whichever comes first. batch: tiles in a step. rate: the peak of
    the learning rate. seed: of the tiles.
    """

    steps: int = 450
    seconds: float = 300.0
    batch: int = 64
    rate: float = 1e-3
    seed: int = 0


def parts(errors: Tensor) -> Tensor:
    """What each tier saves over the one before it, then what the last leaves.

    errors: (N, T, …).
    """
    return torch.cat([errors[:, :-1] - errors[:, 1:], errors[:, -1:]], dim=1)


def material(samples: Sequence[Sample]) -> tuple[Tensor, np.ndarray]:
    """Statistics and expected parts of tiles, and the chance that each is drawn, (tiles,).

    (tiles, STATISTICS + T, side, side). Tiles have SIDE cells a side, fewer where no sample has so
    many. They lie side by side, and once more half a tile on. All photos as they are have the same
    chance together as all variations.
    """
    side = min(SIDE, max(min(sample.lr.shape[-2:]) for sample in samples) // CELL)
    tiles, varied = [], []
    for sample in samples:
        height, width = (length // CELL * CELL for length in sample.lr.shape[-2:])
        with torch.inference_mode():
            seen = statistics(sample.lr[None, :, :height, :width])
            wanted = parts(F.avg_pool2d(sample.expected[None, :, :height, :width], CELL))
            both = torch.cat([seen, wanted], dim=1)[0]
        for first in (0, side // 2):
            tiles.append(cut(both[:, first:, first:], side))
            varied.append(np.full(len(tiles[-1]), sample.variation > 0))
    kinds = np.concatenate(varied)
    weights = np.where(kinds, 1 / max(kinds.sum(), 1), 1 / max((~kinds).sum(), 1))
    return torch.cat(tiles).clone(), weights / weights.sum()


def cut(values: Tensor, side: int) -> Tensor:
    """The whole tiles of a map (C, h, w) by rows: (tiles, C, side, side)."""
    rows, columns = (length // side for length in values.shape[-2:])
    square = values[:, : rows * side, : columns * side].reshape(
        len(values), rows, side, columns, side
    )
    return square.permute(1, 3, 0, 2, 4).flatten(0, 1)


def hold_out(samples: Sequence[Sample], every: int = 8) -> tuple[list[Sample], list[Sample]]:
    """Samples to fit to, and those of each `every`-th photo as it is to judge by.

    Of one photo alone none are held out.
    """
    names = sorted({sample.name for sample in samples})
    kept = set(names[::every]) if len(names) > 1 else set()
    trained = [sample for sample in samples if sample.name not in kept]
    return trained, [sample for sample in samples if sample.name in kept and sample.variation == 0]


def tiles_of(sample: Sample, side: int) -> tuple[Tensor, Tensor, list[tuple[int, int]]]:
    """The whole tiles of a sample by rows, and the rows and columns where they begin.

    Pixels (n, 3, side, side), true errors (n, T).
    """
    tiles = cut(torch.cat([sample.lr, sample.errors]), side)
    rows, columns = (length // side for length in sample.lr.shape[-2:])
    places = [(row * side, column * side) for row in range(rows) for column in range(columns)]
    return tiles[:, :3], tiles[:, 3:].mean(dim=(2, 3)), places


def loss(predicted: Tensor, expected: Tensor, unit: Tensor) -> Tensor:
    """How far predicted sizes of parts (N, T, h, w) are from expected ones.

    In a form whose best prediction is the mean of what may come, the Poisson deviance: with squares
    a few extreme tiles would decide, with logarithms the many flat ones, where nothing is at stake,
    and a median would be learnt, which is no price that work can be compared with. unit: that each
    part is measured in, (T,).
    """
    size = predicted + SMALL
    return ((size - expected * size.log()).mean(dim=(0, 2, 3)) / unit).sum()


class Material:
    """Tiles to fit to, drawn at random, turned or mirrored in one of eight ways."""

    def __init__(self, samples: Sequence[Sample], seed: int) -> None:
        self.tiles, self.chances = material(samples)
        self.rng = np.random.default_rng(seed)

    def draw(self, count: int) -> tuple[Tensor, Tensor]:
        """Statistics and expected parts of some tiles."""
        chosen = self.rng.choice(len(self.tiles), count, p=self.chances)
        some = self.tiles[torch.from_numpy(chosen)]
        some = some.flip([axis for axis in (2, 3) if self.rng.random() < 0.5])
        some = some.transpose(2, 3) if self.rng.random() < 0.5 else some
        return some[:, :STATISTICS], some[:, STATISTICS:]


def fit(
    scout: Scout,
    samples: Sequence[Sample],
    schedule: Schedule,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> float:
    """Train in place; the mean loss of the last tenth. progress: called with (steps done, all)."""
    started, losses = time.monotonic(), []
    tiles = Material(samples, schedule.seed)
    seen, wanted = tiles.draw(1024)
    means = wanted.mean(dim=(0, 2, 3))
    scout.signs = [-1 if mean < 0 else 1 for mean in means.tolist()]
    scout.start(seen)
    scout.balance(seen, wanted)
    unit = means.abs().clamp(min=SMALL)
    optimiser = torch.optim.AdamW(scout.parameters(), schedule.rate, weight_decay=0.01)
    scout.train().requires_grad_(True)
    for step in range(schedule.steps):
        share = max(step / schedule.steps, (time.monotonic() - started) / schedule.seconds)
        if share >= 1:
            break
        for group in optimiser.param_groups:
            group["lr"] = (
                schedule.rate * min(1, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * share))
            )
        value = loss_at_sizes(scout, tiles.draw(schedule.batch), unit)
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        torch.nn.utils.clip_grad_norm_(scout.parameters(), 1.0)
        optimiser.step()
        losses.append(value.item())
        progress(step + 1, schedule.steps)
    scout.temper(KEEP)
    scout.balance(*tiles.draw(1024))
    scout.eval().requires_grad_(False)
    return float(np.mean(losses[-max(1, len(losses) // 10) :]))


def loss_at_sizes(scout: Scout, batch: tuple[Tensor, Tensor], unit: Tensor) -> Tensor:
    """The loss on tiles and on their parts; batch: statistics and expected parts."""
    seen, wanted = batch
    predicted, expected = scout.sized(scout.parts(seen)), scout.sized(wanted)
    sizes = [min(side, seen.shape[-1]) for side in PARTS]
    return torch.stack(
        [loss(F.avg_pool2d(predicted, side), F.avg_pool2d(expected, side), unit) for side in sizes]
    ).sum()


def speed(scout: Scout, side: int = 128, batch: int = 8) -> float:
    """Seconds for each million input pixels on the threads that torch has; best of five."""
    tiles, best = torch.rand(batch, 3, side, side), math.inf
    with torch.inference_mode():
        for _ in range(5):
            started = time.perf_counter()
            scout(tiles)
            best = min(best, time.perf_counter() - started)
    return best / (batch * side * side) * 1e6
