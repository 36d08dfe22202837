"""The figures behind the laws: `make bench-checks`.

PSNR needs the evaluation sets below TIERSCALE_SHARED; without them it is left out.
"""

import os
from fractions import Fraction
from pathlib import Path

import numpy as np

from benchmarks.results import record
from tests.end_to_end.seams import COFFEE, steps, whole
from tierscale.jobs.evaluate import evaluate_folder
from tierscale.pipeline.geometry.grid import Grid
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.plan.policies import Budget, Full
from tierscale.pipeline.routing.costs import cost_of_routes, full_cost
from tierscale.pipeline.run.array import enlarge_array, upscale_array
from tierscale.pipeline.run.tiers import load_tiers

TIERS = ("bicubic", "fsrcnn-x4", "carn-x4")


def tiled_equals_whole() -> dict[str, float]:
    """How tiles differ from the whole image.

    The largest difference of floats, and the share of 8-bit values that differ.
    """
    image = COFFEE[:, 60:261, 90:331]
    unit = image.astype(np.float32) / 255
    worst, different = 0.0, 0.0
    for name in TIERS:
        wanted = whole(name, unit, 4)
        eight = np.clip(np.rint(wanted * 255), 0, 255).astype(np.uint8)
        for tile in (32, 50, 128):
            options = Options(tiers=(name,), policy=Full(), tile=tile, value_range=(0.0, 1.0))
            worst = max(worst, float(np.abs(enlarge_array(unit, options).pixels - wanted).max()))
            tiled = upscale_array(image, 4, tiers=[name], policy="full", tile=tile)
            different = max(different, float((tiled != eight).mean()))
    return {"largest difference, float": worst, "share of 8-bit values that differ": different}


def halos() -> dict[str, float]:
    """Multiply-adds of the full CARN at the default tile over those of the image in one piece."""
    tier = load_tiers(("carn-x4",), Fraction(4))

    def ratio(side: int) -> float:
        grid = Grid((side, side), Fraction(4), 128)
        return cost_of_routes(grid, tier, 4, 1)(np.zeros(grid.tiles[0] * grid.tiles[1], int)) / (
            tier[0].cost * side * side
        )

    return {
        "4096 x 4096": round(ratio(4096), 4),
        "largest of 128..3000, every 13th": round(
            max(ratio(side) for side in range(128, 3000, 13)), 4
        ),
    }


def budgets() -> dict[str, float]:
    """Executed share of the full cost for each budget, on scikit-image's coffee in tiles of 32."""
    executed = {}
    for budget in (0.1, 0.25, 0.5, 0.75, 1.0):
        options = Options(tiers=TIERS, policy=Budget(budget), tile=32)
        enlarged = enlarge_array(COFFEE[:, :256, :320], options)
        share = enlarged.cost / full_cost(enlarged.plan)
        executed[f"asked {budget:g}"] = round(share, 4)
    return executed


def main() -> None:
    """Measure everything and record it."""
    command = "make bench-checks"
    image = COFFEE[:, :256, :320]
    record("tiled equals whole", command, tiled_equals_whole())
    seams = {
        "step across over step one input pixel beside": round(steps(image, 4), 4),
        "with a hard edge": round(steps(image, 0), 4),
    }
    record("seams", command, seams)
    record("halos", command, halos())
    record("budget", command, budgets())
    sets = Path(os.environ.get("TIERSCALE_SHARED", "../shared")) / "data" / "eval"
    if sets.is_dir():
        for folder in ("Set14", "Urban100"):
            figures = {}
            for name in TIERS:
                mean = evaluate_folder(
                    str(sets / folder), Options(tiers=(name,), policy=Full(), tile=256)
                )["mean"]
                figures[name] = {"psnr": round(mean["psnr"], 3), "ssim": round(mean["ssim"], 4)}
            record(
                f"quality on {folder}",
                f"tierscale evaluate --hr {folder} --policy full --tiers NAME",
                figures,
            )


if __name__ == "__main__":
    main()
