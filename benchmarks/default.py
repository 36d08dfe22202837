"""Whether the default is ever foolish: `make bench-default`; writes docs/default.csv.

Crops of the sets of `make bench-routing`, shrunk by 4 to 8 bits, go through the pipeline under the
default and under other policies, with the default tiers, tiles of 128 and all tiles of 64. Seconds
are those of one core. The step is how much sharper the dearer side of a border between tiers is
than the cheaper one, within 8 output pixels, against the same places all made by the full tier.
"""

import argparse
import csv
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from benchmarks.scenes import SCALE, SETS
from tierscale.models.train.data.degradations import degrade, seeded
from tierscale.models.train.data.shrink import shrink
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.plan.plan import Plan
from tierscale.pipeline.plan.policies import Budget, Full, Light, MaxLoss, in_words
from tierscale.pipeline.run.array.work import enlarge_array

OTHERS = (Full(), MaxLoss(0.02), Budget(0.5), Budget(0.25), Light())
DOCS = Path("docs")
NEAR = 8
TILES = (128, 64)
# No other policy may be both this much faster and this much better, in dB.
FASTER, BETTER = 0.03, 0.03


def energy(pixels: np.ndarray) -> np.ndarray:
    """Squared differences of neighbouring pixels of an output (3, H, W), (H, W)."""
    values = pixels.astype(np.float64)
    down = np.diff(values, axis=1, append=values[:, -1:])
    across = np.diff(values, axis=2, append=values[:, :, -1:])
    return (down**2 + across**2).mean(axis=0)


def sides(plan: Plan, gradients: np.ndarray) -> tuple[float, float]:
    """Sums of a map (H, W) beside borders between tiers: on cheaper sides, and on dearer ones."""
    side, sums = plan.tile * SCALE, [0.0, 0.0]
    for axis in (0, 1):
        values, routes = (gradients, plan.routes) if axis == 0 else (gradients.T, plan.routes.T)
        for row, column in np.argwhere(routes[1:] != routes[:-1]):
            edge, along = (row + 1) * side, slice(column * side, (column + 1) * side)
            above = values[edge - NEAR : edge, along].sum()
            below = values[edge : edge + NEAR, along].sum()
            dearer = int(routes[row + 1, column] > routes[row, column])
            sums[1 - dearer] += above
            sums[dearer] += below
    return sums[0], sums[1]


def step(plan: Plan, pixels: np.ndarray, full: np.ndarray) -> float:
    """How much sharper dearer sides of borders are, the picture left aside; 1: not at all."""
    cheap, dear = sides(plan, energy(pixels))
    plain_cheap, plain_dear = sides(plan, energy(full))
    if cheap == 0 or plain_dear == 0:
        return 1.0
    return (dear / cheap) / (plain_dear / plain_cheap)


def rows_of(name: str, image: str, hr: torch.Tensor, tile: int) -> list[dict[str, object]]:
    """What each policy takes and leaves on one image."""
    lr = degrade(shrink(hr, SCALE), SETS[name].kind, seeded(image))
    pixels = (lr * 255).round().byte().numpy()
    truth = hr.numpy()
    found, full = [], np.empty(0)
    for policy in (*OTHERS[:1], None, *OTHERS[1:]):
        options = Options(scale=Fraction(SCALE), tile=tile)
        options = options if policy is None else options.altered(policy=policy)
        began = time.process_time()
        made = enlarge_array(pixels, options)
        seconds = time.process_time() - began
        if policy == Full():
            full = made.pixels
        error = np.square(made.pixels / 255.0 - truth).mean()
        audit = made.plan.audit
        found.append(
            {
                "set": name,
                "image": image,
                "tile": tile,
                "policy": "default" if policy is None else in_words(policy),
                "seconds": round(seconds, 2),
                "psnr": round(-10 * float(np.log10(error)), 3),
                "told": "" if audit is None else f"{audit.loss_db} ({audit.low} to {audit.high})",
                "step": round(step(made.plan, made.pixels, full), 3),
            }
        )
    return found


def foolish(rows: Sequence[dict[str, object]]) -> list[str]:
    """Policies that are both faster and better than the default on one image."""
    (own,) = [row for row in rows if row["policy"] == "default"]
    return [
        str(row["policy"])
        for row in rows
        if float(str(row["seconds"])) < (1 - FASTER) * float(str(own["seconds"]))
        and float(str(row["psnr"])) > float(str(own["psnr"])) + BETTER
    ]


def main(line: Sequence[str] | None = None) -> None:
    """Measure; write docs/default.csv unless only a part was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.default")
    parser.add_argument("--sets", help="names of sets with semicolons; all unless given")
    parser.add_argument("--tile", type=int, help="input pixels; 128 and 64 unless given")
    options = parser.parse_args(line)
    torch.set_num_threads(1)
    rows: list[dict[str, object]] = []
    for name in options.sets.split(";") if options.sets else SETS:
        for image, hr in SETS[name].images():
            for tile in (options.tile,) if options.tile else TILES:
                found = rows_of(name, image, hr, tile)
                for row in found:
                    print(*row.values(), sep=" | ", flush=True)
                print(f"{name} {image}: foolish beside {foolish(found) or 'none'}", flush=True)
                rows += found
    if options.sets is None and options.tile is None:
        with (DOCS / "default.csv").open("w", newline="") as file:
            table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            table.writeheader()
            table.writerows(rows)


if __name__ == "__main__":
    main()
