"""Fitting the scout: the tiers enlarge shrunken photos, and the scout learns what they leave. To be done again when weights change:
`python -m models.train.scout --tiers bicubic,fsrcnn-x4,carn-x4 --scale 4 --hr DIR`.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import models
from models.scout import Scout, write_scout
from models.train.degrade import shrink
from models.train.observe import Sample, leave, observe
from models.train.photos import centre_crop, image_files, read_image
from models.upscaler import Upscaler

# Added to errors before the logarithm: what leaves less than this (50 dB) is good enough not to be ranked.
SMALL = 1e-5
# Input pixels a side of the tiles that the correlation is measured on.
TILE = 32


def draw(samples: Sequence[Sample], batch: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Random tiles of one random size, flipped and transposed: (batch, 3, n, n), and their true errors (batch, T)."""
    size = int(rng.choice([12, 16, 24, 32, 48, 64, 96, 128], p=[0.05, 0.1, 0.15, 0.2, 0.2, 0.15, 0.1, 0.05]))
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


def loss(predicted: Tensor, true: Tensor) -> Tensor:
    """Absolute difference of log errors (N, T), and of the log difficulty, which is what tiles are ranked by.

    Weighted with the root of the true value: unweighted, the many nearly flat tiles decide, where nothing is at stake.
    """

    def apart(a: Tensor, b: Tensor) -> Tensor:
        weight = (b + SMALL).sqrt()
        return (weight / weight.mean() * (torch.log(a + SMALL) - torch.log(b + SMALL)).abs()).mean()

    gains = [(errors[:, 0] - errors[:, -1]).clamp(min=0) for errors in (predicted, true)]
    return apart(predicted, true) + apart(*gains)


def fit(scout: Scout, samples: Sequence[Sample], seconds: float, steps: int, seed: int) -> float:
    """Train in place for `steps` or `seconds`, whichever ends first; the mean loss of the last tenth."""
    optimiser = torch.optim.Adam(scout.parameters(), 3e-3)
    rng, started, losses = np.random.default_rng(seed), time.monotonic(), []
    for step in range(steps):
        share = max(step / steps, (time.monotonic() - started) / seconds)
        if share >= 1:
            break
        for group in optimiser.param_groups:
            group["lr"] = 3e-3 * min(1, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * share))
        tiles, errors = draw(samples, 32, rng)
        value = loss(scout(tiles), errors)
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        torch.nn.utils.clip_grad_norm_(scout.parameters(), 1.0)
        optimiser.step()
        losses.append(value.item())
    return float(np.mean(losses[-max(1, len(losses) // 10) :]))


def ranks(values: Tensor) -> Tensor:
    """Rank of each value, 0 for the smallest; equal values get ranks in order of place."""
    return values.argsort(stable=True).argsort().double()


def spearman(a: Tensor, b: Tensor) -> float:
    """Rank correlation of two lists of numbers, -1..1."""
    return float(torch.corrcoef(torch.stack([ranks(a), ranks(b)]))[0, 1])


def tiles_of(sample: Sample, scout: Scout) -> tuple[Tensor, Tensor]:
    """Predicted and true errors (n, T) of the whole tiles of a sample."""
    rows, columns = (length // TILE for length in sample.lr.shape[-2:])
    cut = sample.lr[:, : rows * TILE, : columns * TILE].unfold(1, TILE, TILE).unfold(2, TILE, TILE)
    tiles = cut.permute(1, 2, 0, 3, 4).reshape(-1, 3, TILE, TILE)
    true = F.avg_pool2d(sample.errors[:, : rows * TILE, : columns * TILE][None], TILE)[0].flatten(1).T
    with torch.inference_mode():
        return scout(tiles), true


def correlate(folder: Path, scout: Scout, upscalers: Sequence[Upscaler]) -> dict[str, float]:
    """Rank correlation of predicted with true difficulty on tiles of 32: over all images, and mean within an image of 8 tiles or more."""
    scale, parts, within = int(scout.scale), [], []
    for path in image_files(folder):
        hr = centre_crop(read_image(path), scale) / 255
        predicted, true = tiles_of(leave(upscalers, shrink(hr, scale), hr, scale), scout)
        gains = (predicted[:, 0] - predicted[:, -1]).clamp(min=0), (true[:, 0] - true[:, -1]).clamp(min=0)
        parts.append(torch.stack(gains))
        if parts[-1].shape[1] >= 8:
            within.append(spearman(*gains))
    all_tiles = torch.cat(parts, dim=1)
    found = {"over_all": round(spearman(all_tiles[0], all_tiles[1]), 3)}
    return {**found, "within_image": round(float(np.mean(within)), 3)} if within else found


def speed(scout: Scout, side: int = 128, batch: int = 8) -> float:
    """Seconds for each million input pixels on the threads that torch has; best of five."""
    tiles, best = torch.rand(batch, 3, side, side), math.inf
    with torch.inference_mode():
        for _ in range(5):
            started = time.perf_counter()
            scout(tiles)
            best = min(best, time.perf_counter() - started)
    return best / (batch * side * side) * 1e6


def arguments() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = argparse.ArgumentParser(prog="python -m models.train.scout", description="Fit the scout of some tiers.", allow_abbrev=False)
    parser.add_argument("--tiers", required=True, help="names, cheap to dear, with commas")
    parser.add_argument("--scale", type=int, required=True)
    parser.add_argument("--hr", type=Path, required=True, metavar="DIR", help="folder of photos to learn from")
    parser.add_argument("--check", type=Path, nargs="*", default=[], metavar="DIR", help="folders of images to measure on only")
    parser.add_argument("--variants", type=int, default=2, help="variations of each photo")
    parser.add_argument("--observe", type=float, default=600, metavar="SECONDS", help="at most, for running the tiers")
    parser.add_argument("--seconds", type=float, default=150, help="at most, for fitting")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--name", help="of the file; scout-xSCALE unless given")
    parser.add_argument("--out", type=Path, default=models.ZOO, metavar="DIR")
    return parser


def run(options: argparse.Namespace) -> Path:
    """Fit and store a scout with its card; the path of its weights."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    tiers = options.tiers.split(",")
    upscalers = [models.load(tier) for tier in tiers]
    scout = Scout(tiers, [models.digest(tier) for tier in tiers], Fraction(options.scale))
    samples = observe(options.hr, upscalers, options.scale, options.variants, options.seed, options.observe)
    print(f"{len(samples)} samples, {sum(s.lr[0].numel() for s in samples) / 1e6:.1f} million input pixels", flush=True)
    final = fit(scout, samples, options.seconds, options.steps, options.seed)
    scout.eval().requires_grad_(False)
    path = options.out / f"{options.name or f'scout-x{options.scale}'}.safetensors"
    write_scout(path, scout)
    card: dict[str, Any] = {"name": path.stem, "tiers": tiers, "data": options.hr.name, "samples": len(samples), "loss": round(final, 4)}
    card["spearman"] = {folder.name: correlate(folder, scout, upscalers) for folder in options.check}
    card["seconds_per_million_pixels"] = round(speed(scout), 4)
    told = ("tiers", "scale", "seed", "variants", "observe", "seconds", "steps")
    given = " ".join(f"--{name} {getattr(options, name)}" for name in told)
    card["command"] = f"python -m models.train.scout --hr DIR {given}"
    path.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n")
    print(json.dumps(card), flush=True)
    return path


def main() -> int:
    """Exit code 0 when fitted, 2 when the arguments cannot work."""
    try:
        run(arguments().parse_args())
    except ValueError as error:
        print(f"scout: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
