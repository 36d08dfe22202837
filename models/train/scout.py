"""Fitting the scout to what tiers left on photos. To be done again when their weights change: `tierscale scout fit`."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.scout import Scout
from models.train.observe import Sample

# Added to errors before they are compared: what is below (60 dB) is never worth a dearer tier.
SMALL = 1e-6
# Sides of the tiles that are drawn, in input pixels, and how often.
SIDES, OFTEN = (16, 24, 32, 48, 64, 96, 128), (0.1, 0.15, 0.25, 0.2, 0.15, 0.1, 0.05)


@dataclass(frozen=True, slots=True)
class Schedule:
    """When to stop: after `steps` or `seconds`, whichever comes first. batch: tiles in a step. rate: the peak of the learning rate."""

    steps: int = 4000
    seconds: float = 300.0
    batch: int = 32
    rate: float = 3e-3
    seed: int = 0


def draw(samples: Sequence[Sample], batch: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Random tiles of one random size, flipped and transposed: (batch, 3, n, n), and their true errors (batch, T)."""
    size = int(rng.choice(SIDES, p=OFTEN))
    fitting = [s for s in samples if min(s.lr.shape[-2:]) >= size] or [max(samples, key=lambda s: min(s.lr.shape[-2:]))]
    size = min(size, *(min(s.lr.shape[-2:]) for s in fitting))
    tiles, errors = [], []
    for index in rng.integers(len(fitting), size=batch):
        sample = fitting[index]
        y, x = (int(rng.integers(length - size + 1)) for length in sample.lr.shape[-2:])
        tile = sample.lr[:, y : y + size, x : x + size].flip([dim for dim in (-2, -1) if rng.random() < 0.5])
        tiles.append(tile.transpose(-2, -1) if rng.random() < 0.5 else tile)
        errors.append(sample.errors[:, y : y + size, x : x + size].mean(dim=(1, 2)))
    return torch.stack(tiles), torch.stack(errors)


def hold_out(samples: Sequence[Sample], every: int = 8) -> tuple[list[Sample], list[Sample]]:
    """Samples to fit to, and those of each `every`-th photo as it is to judge by; of one photo alone both are that."""
    names = sorted({sample.name for sample in samples})
    kept = set(names[::every]) if len(names) > 1 else set()
    trained = [sample for sample in samples if sample.name not in kept]
    return trained, [sample for sample in samples if sample.name in kept and sample.variation == 0] or trained


def tiles_of(sample: Sample, side: int) -> tuple[Tensor, Tensor, list[tuple[int, int]]]:
    """The whole tiles of a sample by rows: pixels (n, 3, side, side), true errors (n, T), and rows and columns where they begin."""
    rows, columns = (length // side for length in sample.lr.shape[-2:])
    both = torch.cat([sample.lr, sample.errors])[:, : rows * side, : columns * side]
    tiles = both.reshape(len(both), rows, side, columns, side).permute(1, 3, 0, 2, 4).flatten(0, 1)
    places = [(row * side, column * side) for row in range(rows) for column in range(columns)]
    return tiles[:, :3], tiles[:, 3:].mean(dim=(2, 3)), places


def loss(predicted: Tensor, true: Tensor) -> Tensor:
    """How far predicted errors (N, T) are from true ones, in a form whose best prediction is the mean of what may come.

    That is the Poisson deviance: with squares a few extreme tiles would decide, with logarithms the many flat ones, where nothing is at
    stake, and a median would be learnt, which is no price that work can be compared with. It is taken of the dearest tier's error and of
    what each tier saves over the one before, since tiles are routed by that; each in units of its mean.
    """

    def parts(errors: Tensor) -> Tensor:
        return torch.cat([errors[:, :-1] - errors[:, 1:], errors[:, -1:]], dim=1)

    told, real = parts(predicted) + SMALL, parts(true)
    return ((told - real * told.log()) / real.clamp(min=SMALL).mean(dim=0)).sum(dim=1).mean()


def fit(scout: Scout, samples: Sequence[Sample], schedule: Schedule, told: Callable[[int, int], None] = lambda done, total: None) -> float:
    """Train in place; the mean loss of the last tenth. told: called with (steps done, all)."""
    optimiser = torch.optim.Adam(scout.parameters(), schedule.rate)
    rng, started, losses = np.random.default_rng(schedule.seed), time.monotonic(), []
    scout.train().requires_grad_(True)
    for step in range(schedule.steps):
        share = max(step / schedule.steps, (time.monotonic() - started) / schedule.seconds)
        if share >= 1:
            break
        for group in optimiser.param_groups:
            group["lr"] = schedule.rate * min(1, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * share))
        tiles, errors = draw(samples, schedule.batch, rng)
        value = loss(scout(tiles), errors)
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        torch.nn.utils.clip_grad_norm_(scout.parameters(), 1.0)
        optimiser.step()
        losses.append(value.item())
        told(step + 1, schedule.steps)
    scout.eval().requires_grad_(False)
    return float(np.mean(losses[-max(1, len(losses) // 10) :]))


def speed(scout: Scout, side: int = 128, batch: int = 8) -> float:
    """Seconds for each million input pixels on the threads that torch has; best of five."""
    tiles, best = torch.rand(batch, 3, side, side), math.inf
    with torch.inference_mode():
        for _ in range(5):
            started = time.perf_counter()
            scout(tiles)
            best = min(best, time.perf_counter() - started)
    return best / (batch * side * side) * 1e6
