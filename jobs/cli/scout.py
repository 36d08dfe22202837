"""`tierscale scout fit`: run tiers on photos, measure what they leave, and fit the small network
that predicts it.
"""

import hashlib
import json
import math
import os
import time
from collections.abc import Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor

from tierscale.jobs.cli.options import ScaleType, answering
from tierscale.jobs.cli.progress import Bar
from tierscale.models import registry as models
from tierscale.models.contract.upscaler import Placement, Upscaled
from tierscale.models.scout import Scout, write_scout
from tierscale.models.train.scouting.fit import Schedule, fit, hold_out, speed, tiles_of
from tierscale.models.train.scouting.observe import Enlarge, Observing, Sample, observe
from tierscale.pipeline.dataset.manifest import parse_tiers
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.inference import statistics as automatic
from tierscale.pipeline.plan.plan import Tier
from tierscale.pipeline.routing.judging import judge
from tierscale.pipeline.run.draft import load_tiers

# Side in input pixels of the tiles that the table holds and that a scout is judged on, and shares
# of the dearest cost that it is judged at.
TILE, SHARES = 64, (0.25, 0.5, 0.75)
# Tiles below which nothing is said of how good a scout is.
FEWEST = 30


@click.group()
def scout() -> None:
    """The small network that predicts, before anything is enlarged, what each tier will leave wrong
    on a tile.
    """


@scout.command("fit")
@click.option(
    "--tiers",
    required=True,
    help="Networks from cheap to dear, with commas between them, as for upscale.",
)
@click.option(
    "--scale",
    type=ScaleType(),
    default=Fraction(4),
    show_default="4",
    help="Scale: a number or a fraction, as for upscale.",
)
@click.option(
    "--hr",
    "folder",
    required=True,
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder of photos, 8 bit.",
)
@click.option(
    "--variants",
    type=click.IntRange(min=0),
    default=4,
    show_default=True,
    help="Variations of each photo: finer, turned, dark, noisy …",
)
@click.option(
    "--observe",
    "most",
    type=float,
    default=600.0,
    show_default=True,
    help="Seconds at most for running the tiers.",
)
@click.option(
    "--seconds", type=float, default=300.0, show_default=True, help="Seconds at most for fitting."
)
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    default=450,
    show_default=True,
    help="Steps at most for fitting.",
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads (default: all).")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    help="What to write, a name that ends in .safetensors (default: where upscale looks).",
)
@answering
def fit_scout(
    tiers: str,
    scale: Fraction,
    folder: Path,
    variants: int,
    most: float,
    seconds: float,
    steps: int,
    seed: int,
    threads: int | None,
    out: Path | None,
    as_json: bool,
    debug: bool,
) -> None:
    """Fit the scout of some tiers on photos of your own; upscale finds it by the tiers' weights, or
    is given it by --scout FILE.

    Beside it: what the tiers left, tile by tile (.errors.parquet), and a card (.json).
    """
    for option, value in (("--observe", most), ("--seconds", seconds)):
        if not 0 < value < math.inf:
            raise Refused(f"{option} {value:g} is no time above 0 seconds")
    torch.set_num_threads(threads or os.cpu_count() or 1)
    labels = parse_tiers(tiers)
    loaded = check(labels, scale, out)
    digests = [models.scout_key(tier.label) for tier in loaded]
    own = f"scout-x{scale}-{hashlib.sha256(' '.join(digests).encode()).hexdigest()[:8]}.safetensors"
    path = out or models.scout_folders()[0] / own.replace(
        "/", "_"
    )  # in the scale, where that is a fraction
    began = time.monotonic()
    with Bar() as bar:
        try:
            samples = observe(
                folder,
                [runner(tier) for tier in loaded],
                scale,
                Observing(variants, most, seed),
                partial(bar, "photos"),
            )
        except ValueError as error:
            raise Refused(str(error)) from error
        observed = time.monotonic() - began
        torch.manual_seed(seed)
        fitted = Scout([tier.label for tier in loaded], digests, scale)
        costs = [tier.cost for tier in loaded]
        trained, held = hold_out(samples)
        loss = fit(fitted, trained, Schedule(steps, seconds, seed=seed), partial(bar, "fit"))
    card = {
        "name": path.stem,
        "tiers": list(fitted.tiers),
        "scale": str(scale),
        "data": folder.name,
        "samples": len(samples),
        "loss": round(loss, 4),
        "captured": captured(fitted, held, costs),
        "seconds": {"observe": round(observed), "fit": round(time.monotonic() - began - observed)},
        "seconds_per_million_pixels": round(speed(fitted), 4),
        "command": (
            f"tierscale scout fit --tiers {tiers} --scale {scale} --hr DIR --variants {variants}"
            f" --observe {most:g} --seconds {seconds:g} --steps {steps} --seed {seed}"
        ),
    }
    # The scout goes last: with it the others are found, too.
    path.parent.mkdir(parents=True, exist_ok=True)
    write_errors(path.with_suffix(".errors.parquet"), samples, [tier.label for tier in loaded])
    path.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n")
    write_scout(path, fitted)
    content = {"status": "done", "output": str(path), **card, "error": None}
    print(json.dumps(content) if as_json else tell(path, card), flush=True)


def check(labels: Sequence[str], scale: Fraction, out: Path | None) -> tuple[Tier, ...]:
    """The tiers that a scout is to know. Refused: what load_tiers() refuses, a single one, a name
    of another kind.
    """
    if out is not None and out.suffix != ".safetensors":
        raise Refused(
            f"the output {out} does not end in .safetensors, which is the format of weights here"
        )
    tiers = load_tiers(labels, scale)
    if len(tiers) < 2:
        raise Refused(
            f"there is nothing to choose with {tiers[0].label} alone; name two tiers or more"
        )
    return tiers


def runner(tier: Tier) -> Enlarge:
    """A tier as the pipeline runs it: at its effort, or deciding by the statistics of each
    image.
    """
    upscaler = models.load(tier.name)
    if not tier.auto:
        return partial(upscaler, effort=tier.effort)
    assert isinstance(upscaler, automatic.Automatic)

    def run(windows: Tensor, place: Placement) -> Upscaled:
        cutoffs = upscaler.difficulty_cutoffs
        found = automatic.thresholds(
            upscaler.difficulties(windows, place)[0].numpy(), len(cutoffs) + 1
        )
        return upscaler(windows, place, settings=dict(zip(cutoffs, found, strict=True)))  # type: ignore[operator]

    return run


def write_errors(path: Path, samples: Sequence[Sample], labels: Sequence[str]) -> None:
    """The measured errors as a table: image, variation (0: as it is), y, x, tile (input pixels) and
    mean squared error of each tier.
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
    """Share of a perfect router's gain over chance that a scout captures on the tiles of samples,
    at some shares of the dearest cost.

    None: there are too few tiles to tell.
    """
    parts = [tiles_of(sample, TILE)[:2] for sample in samples]
    if sum(len(tiles) for tiles, _ in parts) < FEWEST:
        return None
    with torch.inference_mode():
        told = torch.cat([fitted(tiles) for tiles, _ in parts if len(tiles)]).numpy()
    true = torch.cat([errors for _, errors in parts]).double().numpy()
    judged = {
        share: judge(told, true, np.ones(len(true)), costs, share)
        for share in SHARES
        if share > costs[0] / costs[-1]
    }
    return {f"{share:g}": round(one.captured, 3) for share, one in judged.items()}


def tell(path: Path, card: dict[str, Any]) -> str:
    """What was fitted, for a person."""
    if card["captured"] is None:
        judged = "too few photos to hold some back and judge it by them: give more or larger ones"
    else:
        shares = ", ".join(
            f"{found:.0%} at {float(share):.0%} of the dearest cost"
            for share, found in card["captured"].items()
        )
        judged = f"on photos held back, of what a perfect router gains over chance: {shares}"
    known = path.parent in models.scout_folders()
    use = "upscale finds it by its tiers" if known else f"give it to upscale with --scout {path}"
    return f"{path}: fitted for {', '.join(card['tiers'])}; {use}\n  {judged}"
