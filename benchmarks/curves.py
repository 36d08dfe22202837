"""Quality against cost and against seconds: `make curves`. Every method over its effort, plain
networks, and tiles routed among those.

Set14 (without its grey image) and Urban100 001-020 at x4, by the protocol of the cards; LR in
float. Every image goes through the pipeline on its own, with tiles of 64. Cost is what was
executed, halos included; seconds are processor time on a CPU. Both are sums over a set for each of
its input pixels. Writes docs/curves.csv and docs/curves.png.
"""

import csv
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch

from tierscale.models import registry as models
from tierscale.models.contract.metrics import psnr
from tierscale.models.train.data.photos import centre_crop, image_files, read_image
from tierscale.models.train.data.shrink import shrink
from tierscale.models.train.measure import LEFT_OUT
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.plan.policies import Budget, Full
from tierscale.pipeline.run.array import enlarge_array

SHARED = Path(os.environ.get("TIERSCALE_SHARED", "../shared"))
SETS = ("Set14", "Urban100")
SCALE = 4
PLAIN = ("bicubic", "fsrcnn-x4", "edsr-x4", "edsr16-x4", "carn-x4")
METHODS = (
    "pcsr-carn-x4",
    "pcsr-fsrcnn-x4",
    "ape-edsr-x4",
    "adaedsr-x4",
    "anysr-edsr",
    "classsr-carn-x4",
)
ROUTED = ("bicubic", "fsrcnn-x4", "edsr-x4")
EFFORTS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.75, 1.0)
BUDGETS = (0.1, 0.15, 0.25, 0.5, 0.75)
DOCS = Path("docs")

Pair = tuple[np.ndarray, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Point:
    """What one series gives on one set at one effort or budget.

    psnr: mean over the images, dB. cost: multiply-adds for each input pixel. seconds: of one core
    for each million input pixels.
    """

    set: str
    series: str
    effort: float
    psnr: float
    cost: float
    seconds: float


def pairs(folder: Path) -> list[Pair]:
    """Images of a set, small (3, h, w) in float and large (3, H, W), 0..1."""
    found = []
    for path in image_files(folder):
        if (folder.name, path.stem) not in LEFT_OUT:
            hr = centre_crop(read_image(path), SCALE) / 255
            found.append((shrink(hr, SCALE).numpy(), hr))
    return found


def point(
    where: str, series: str, effort: float, options: Options, images: Sequence[Pair]
) -> Point:
    """Enlarge all images of a set by some options."""
    quality, cost, seconds = [], 0.0, 0.0
    enlarge_array(images[0][0], options)  # loads the networks
    for lr, hr in images:
        began = time.process_time()
        made = enlarge_array(lr, options)
        seconds += time.process_time() - began
        cost += made.cost
        quality.append(psnr(torch.from_numpy(made.pixels), hr, SCALE))
    pixels = sum(lr[0].size for lr, _ in images)
    return Point(
        where,
        series,
        effort,
        round(float(np.mean(quality)), 4),
        round(cost / pixels),
        round(seconds / pixels * 1e6, 3),
    )


def requests() -> Iterator[tuple[str, float, Options]]:
    """Series, effort or budget, and options of every point."""
    alone = Options(policy=Full(), tile=64, value_range=(0.0, 1.0))
    for name in PLAIN:
        yield name, 1.0, replace(alone, tiers=(name,))
    for name in METHODS:
        if name not in models.names():
            print(f"{name} is not in the zoo: left out", file=sys.stderr)
            continue
        efforts = models.load(name).efforts
        floor = 0.0 if efforts is None else efforts.floor
        for effort in sorted({max(effort, round(floor, 3)) for effort in EFFORTS}):
            label = name if effort == 1 else f"{name}@{effort:g}"
            yield name, effort, replace(alone, tiers=(label,))
    for budget in BUDGETS:
        yield (
            "tiles routed among " + ", ".join(ROUTED),
            budget,
            replace(alone, tiers=ROUTED, policy=Budget(budget)),
        )


def draw(points: Sequence[Point], path: Path) -> None:
    """A panel for each set and each measure of work."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    figure, panels = pyplot.subplots(len(SETS), 2, figsize=(13, 11), layout="constrained")
    names = list(dict.fromkeys(one.series for one in points))
    lines = [
        name for name in names if len({one.effort for one in points if one.series == name}) > 1
    ]
    colours = dict(zip(lines, pyplot.get_cmap("tab10").colors, strict=False))  # type: ignore[attr-defined]
    for row, where in enumerate(SETS):
        for panel, measure, unit in (
            (panels[row][0], "cost", "multiply-adds for each input pixel"),
            (panels[row][1], "seconds", "seconds of one core for each million input pixels"),
        ):
            for name in names:
                some = [one for one in points if one.series == name and one.set == where]
                across, up = [getattr(one, measure) for one in some], [one.psnr for one in some]
                if name in lines:
                    panel.plot(
                        across,
                        up,
                        "s--" if name.startswith("tiles") else ".-",
                        color=colours[name],
                        label=name,
                    )
                else:  # single points are named where they are
                    panel.plot(across, up, "o", color="black")
                    panel.annotate(
                        name,
                        (across[0], up[0]),
                        xytext=(-5, 6),
                        textcoords="offset points",
                        fontsize=8,
                        ha="right",
                    )
            panel.set(xscale="log", xlabel=unit, ylabel="PSNR, dB", title=where)
            panel.xaxis.set_major_locator(
                ticker.LogLocator(subs=(1, 2, 5) if measure == "seconds" else (1,))
            )
            panel.xaxis.set_major_formatter("{x:,.0f}")
            panel.xaxis.set_minor_formatter("")
            panel.grid(alpha=0.3, which="both")
    figure.legend(
        *panels[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=9
    )
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def main() -> None:
    """Measure all points and write the table and the picture."""
    points = []
    images = {where: pairs(SHARED / "data" / "eval" / where) for where in SETS}
    for series, effort, options in requests():
        for where in SETS:
            points.append(point(where, series, effort, options, images[where]))
            print(points[-1], file=sys.stderr, flush=True)
    with (DOCS / "curves.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Point)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(one) for one in points)
    draw(points, DOCS / "curves.png")


if __name__ == "__main__":
    main()
