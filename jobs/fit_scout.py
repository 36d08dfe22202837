"""Fit a scout: run tiers on photos, measure the errors they leave, train the network on them."""

import hashlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tierscale.jobs.cli.progress import Bar
from tierscale.models import registry as models
from tierscale.models.contract.upscaler import Placement, Upscaled
from tierscale.models.scout import Scout, write_scout
from tierscale.models.train.scouting.fit import Schedule, fit, hold_out, speed, tiles_of
from tierscale.models.train.scouting.observe import Enlarge, Observing, Sample, observe
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.inference import statistics as automatic
from tierscale.pipeline.plan.tiers import Tier, parse_tiers
from tierscale.pipeline.routing.judging import judge
from tierscale.pipeline.run.tiers import load_tiers

# Side in input pixels of the tiles that the table holds and that a scout is judged on, and shares
# of the full tier's cost that it is judged at.
TILE, SHARES = 64, (0.25, 0.5, 0.75)
# Fewest tiles on which a scout is judged.
FEWEST = 30


@dataclass(frozen=True, slots=True)
class FitOptions:
    """How a scout is fitted.

    tiers: labels from light to full, separated by commas. folder: of photos, 8 bit. variants: of
    each photo. observe: seconds at most for running the tiers. seconds, steps: at most for fitting.
    threads: of the CPU; None: all. out: file to write, or None for where upscale looks.
    """

    tiers: str
    scale: Fraction
    folder: Path
    variants: int = 4
    observe: float = 600.0
    seconds: float = 300.0
    steps: int = 450
    seed: int = 0
    threads: int | None = None
    out: Path | None = None

    @property
    def command(self) -> str:
        """The command that fits the same scout; the folder's place is left out."""
        return (
            f"tierscale scout fit --tiers {self.tiers} --scale {self.scale} --hr DIR"
            f" --variants {self.variants} --observe {self.observe:g} --seconds {self.seconds:g}"
            f" --steps {self.steps} --seed {self.seed}"
        )


def fit_scout(options: FitOptions) -> tuple[Path, dict[str, Any]]:
    """Fit a scout and write it; its file, and its card.

    Beside it go the errors that the tiers left, tile by tile (.errors.parquet), and the card
    (.json). Refused: tiers, photos or output that cannot be used.
    """
    torch.set_num_threads(options.threads or os.cpu_count() or 1)
    tiers = check(parse_tiers(options.tiers), options.scale, options.out)
    digests = [models.scout_key(tier.label, tier.weights) for tier in tiers]
    path = options.out or default_path(options.scale, digests)
    began = time.monotonic()
    with Bar() as bar:
        samples = observed(options, tiers, bar)
        observing = time.monotonic() - began
        torch.manual_seed(options.seed)
        scout = Scout([tier.label for tier in tiers], digests, options.scale)
        trained, held = hold_out(samples)
        schedule = Schedule(options.steps, options.seconds, seed=options.seed)
        loss = fit(scout, trained, schedule, partial(bar, "fit"))
    fitting = time.monotonic() - began - observing
    card = {
        "name": path.stem,
        "tiers": list(scout.tiers),
        "scale": str(options.scale),
        "data": options.folder.name,
        "samples": len(samples),
        "loss": round(loss, 4),
        "captured": captured(scout, held, [tier.cost for tier in tiers]),
        "seconds": {"observe": round(observing), "fit": round(fitting)},
        "seconds_per_million_pixels": round(speed(scout), 4),
        "command": options.command,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    # The scout goes last: a scout that is found has its table and card.
    write_errors(path.with_suffix(".errors.parquet"), samples, [tier.label for tier in tiers])
    path.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n")
    write_scout(path, scout)
    return path, card


def default_path(scale: Fraction, digests: Sequence[str]) -> Path:
    """Where upscale looks for the scout of tiers with these digests."""
    key = hashlib.sha256(" ".join(digests).encode()).hexdigest()[:8]
    # A scale that is a fraction holds a slash.
    name = f"scout-x{scale}-{key}.safetensors".replace("/", "_")
    return models.scout_folders()[0] / name


def observed(options: FitOptions, tiers: Sequence[Tier], bar: Bar) -> list[Sample]:
    """What the tiers leave wrong on the photos. Refused: the folder holds none that can be used."""
    try:
        return observe(
            options.folder,
            [runner(tier) for tier in tiers],
            options.scale,
            Observing(options.variants, options.observe, options.seed),
            partial(bar, "photos"),
        )
    except ValueError as error:
        raise Refused(str(error)) from error


def check(labels: Sequence[str], scale: Fraction, out: Path | None) -> tuple[Tier, ...]:
    """The tiers that a scout is to know.

    Refused: what load_tiers() refuses, a single tier, an output that is no .safetensors.
    """
    if out is not None and out.suffix != ".safetensors":
        raise Refused(f"the output {out} does not end in .safetensors; give it a name that does")
    tiers = load_tiers(labels, scale)
    if len(tiers) < 2:
        raise Refused(
            f"there is nothing to choose with {tiers[0].label} alone; name two tiers or more"
        )
    return tiers


def runner(tier: Tier) -> Enlarge:
    """A tier as the pipeline runs it: at its effort, or with settings from each image."""
    upscaler = models.load_weights(tier.name, weights=tier.weights).upscaler
    if not tier.auto:
        return partial(upscaler, effort=tier.effort)
    if not isinstance(upscaler, automatic.Automatic):
        raise TypeError(f"{tier.label} decides nothing by statistics of an image")

    def run(windows: Tensor, place: Placement) -> Upscaled:
        found = automatic.difficulty_cutoffs(
            upscaler.difficulties(windows, place)[0].numpy(), len(upscaler.difficulty_cutoffs) + 1
        )
        return upscaler(
            windows, place, settings=dict(zip(upscaler.difficulty_cutoffs, found, strict=True))
        )  # type: ignore[operator]

    return run


def write_errors(path: Path, samples: Sequence[Sample], labels: Sequence[str]) -> None:
    """Write the measured errors as a Parquet table.

    Columns: image, variation (0: none), y, x, tile (input pixels), mean squared error by tier.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, list[Any]] = {
        name: [] for name in ("image", "variation", "y", "x", "tile", "mse")
    }
    for sample in samples:
        _, errors, places = tiles_of(sample, TILE)
        columns["image"] += [sample.name] * len(errors)
        columns["variation"] += [sample.variation] * len(errors)
        columns["tile"] += [TILE] * len(errors)
        columns["mse"] += errors.tolist()
        for name, axis in (("y", 0), ("x", 1)):
            columns[name] += [place[axis] for place in places]
    kinds = {"image": pa.string(), "mse": pa.list_(pa.float32())}
    table = pa.table(
        {name: pa.array(column, kinds.get(name, pa.int32())) for name, column in columns.items()}
    )
    pq.write_table(table.replace_schema_metadata({"tiers": json.dumps(list(labels))}), path)


def captured(
    fitted: Scout, samples: Sequence[Sample], costs: Sequence[float]
) -> dict[str, float] | None:
    """Share of a perfect router's gain over chance that a scout captures, at some shares of cost.

    Keys: shares of the full tier's cost. None: the samples hold too few tiles to tell.
    """
    parts = [tiles_of(sample, TILE)[:2] for sample in samples]
    if sum(len(tiles) for tiles, _ in parts) < FEWEST:
        return None
    with torch.inference_mode():
        predicted = torch.cat([fitted(tiles) for tiles, _ in parts if len(tiles)]).numpy()
    true = torch.cat([errors for _, errors in parts]).double().numpy()
    judged = {
        share: judge(predicted, true, np.ones(len(true)), costs, share)
        for share in SHARES
        if share > costs[0] / costs[-1]
    }
    return {f"{share:g}": round(one.captured, 3) for share, one in judged.items()}
