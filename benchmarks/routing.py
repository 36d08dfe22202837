"""How near tile routing comes to a perfect router: `make bench-routing`; JSON and PNG go into docs/.

Every router sees the input alone and gives each tile a predicted error for each tier, or one number that ranks tiles; of these, errors are
made with the set's own mean errors, which favours them. The same budget policy turns predictions into tiers. Tiles pay for their own
pixels here, so that what is compared is knowledge of tiles; halos are counted in "groups". Chance knows the tiers' mean errors and no tile
from another, the oracle knows all true errors. PSNR is that of the pooled error, from whole images enlarged by each tier.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

import models
from benchmarks.results import machine
from benchmarks.scenes import SCALE, SETS, SHARED, Scene, scenes, sums
from models import classsr, pcsr
from models.classsr import STEP, TILE, ClassSrUpscaler
from models.cut import Cut
from models.pcsr import PcsrUpscaler
from models.upscaler import Placement
from models.weights import Checkpoint
from pipeline import difficulty, routing
from pipeline.chart import Line, chart
from pipeline.colour import Levels
from pipeline.costs import cost_of_routes
from pipeline.grid import Grid, Span
from pipeline.grouping import groups
from pipeline.judging import judge, leave
from pipeline.plan import DEFAULT_TIERS, Tier
from pipeline.prepare import load_tiers
from pipeline.routing import Choice
from tests.reference_file import read_reference

SHARES = (0.15, 0.25, 0.5, 0.75)
SIDES = {"Urban100 001-020": (32, 64), "Set14": (32, 64), "earth": (64, 128), "painting": (64, 128), "slide": (64, 128)}
REPORTED_ONLY = 32
LOSE = 0.02
DOCS = Path("docs")
# A router: predictions (tiles, T), or numbers (tiles,) that rank tiles, for tiles of some side of a scene.
Router = Callable[[Scene, int], np.ndarray]


def whole(scene: Scene) -> tuple[torch.Tensor, Placement]:
    """A scene as one window."""
    height, width = scene.lr.shape[1:]
    return torch.from_numpy(scene.lr)[None], Placement.whole((height, width), Fraction(SCALE))


def pooled(values: np.ndarray, tile: int) -> np.ndarray:
    """Means of a map (h, w) of input pixels over tiles."""
    return (sums(values.astype(np.float64), tile) / sums(np.ones(values.shape), tile)).ravel()


def scored(scout: difficulty.Scout | None, tiers: int) -> Router:
    """The pre-pass of the pipeline; plain detail without a scout."""

    def route(scene: Scene, tile: int) -> np.ndarray:
        grid = Grid(scene.lr.shape[1:], Fraction(SCALE), tile)  # type: ignore[arg-type]
        levels = Levels(0.0, 1.0, 0.0, 1.0, None)
        found = difficulty.score(
            lambda y0, y1, x0, x1: scene.lr[:, y0:y1, x0:x1], grid, Span(0, grid.tiles[0]), scout, tiers, levels, "rgb", None
        )
        return found.reshape(-1, tiers) if scout is not None else found.reshape(-1, tiers)[:, 0]

    return route


def classifier(upscaler: ClassSrUpscaler) -> Router:
    """ClassSR's classifier: the class that it expects, on its own tiles of 32."""

    def route(scene: Scene, tile: int) -> np.ndarray:
        window, place = whole(scene)
        cut = Cut(place, *window.shape[2:], TILE, STEP)
        with torch.inference_mode():
            shares = torch.softmax(upscaler.classifier(cut.tiles(window)), dim=1)
        return pooled(cut.spread(shares @ torch.arange(shares.shape[1]).float(), 0).numpy(), tile)

    return route


def heavy(upscaler: PcsrUpscaler) -> Router:
    """PCSR's mean probability that a pixel is heavy."""

    def route(scene: Scene, tile: int) -> np.ndarray:
        with torch.inference_mode():
            found, _ = upscaler.difficulties(*whole(scene))
        return pooled(F.avg_pool2d(found[None], SCALE)[0, 0].numpy(), tile)

    return route


def weights_of(name: str, reference: str, published: Callable[..., Checkpoint]) -> tuple[Any, str]:
    """A method of the zoo; where the zoo has none yet, the published weights of the reference data; and which it is."""
    if name in models.names():
        return models.load(name), name
    kept = read_reference(SHARED / "reference" / f"{reference}.safetensors")
    checkpoint = published(kept.weights, kept.config, kept.mean)
    return models.UPSCALERS[checkpoint.blueprint.network](checkpoint, reference), f"published weights, {reference}"


def routers(tiers: Sequence[str]) -> tuple[dict[str, Router], dict[str, str]]:
    """All routers by name, and what each one is."""
    by_class, class_name = weights_of("classsr-carn-x4", "classsr_fsrcnn_x4", classsr.published)
    by_pixel, pixel_name = weights_of("pcsr-carn-x4", "pcsr_carn_x4", pcsr.published)
    scout = models.load_scout(tiers, Fraction(SCALE))
    if scout is None:
        raise SystemExit(f"no scout knows {', '.join(tiers)}; run tierscale scout fit --tiers {','.join(tiers)} --hr DIR")
    found = {
        "gradient energy": scored(None, len(tiers)),
        "ClassSR's classifier": classifier(by_class),
        "PCSR's heavy pixels": heavy(by_pixel),
        "our scout": scored(scout, len(tiers)),
    }
    about = {"ClassSR's classifier": class_name, "PCSR's heavy pixels": pixel_name, "our scout": scout.weights[:12]}
    return found, about


def as_errors(ranks: np.ndarray, true: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """Numbers that rank tiles as errors (tiles, T): what tiers save is in proportion to them, and as much in all as it really is."""
    means = areas @ true / areas.sum()
    share = ranks / max(float(areas @ ranks / areas.sum()), 1e-30)
    return means[-1] + share[:, None] * (means - means[-1])


@dataclass(frozen=True, slots=True)
class Setting:
    """A set of images with its tiles cut. true: errors (tiles, T); areas: input pixels; costs: of a pixel under each tier."""

    images: list[Scene]
    tile: int
    tiers: tuple[Tier, ...]
    true: np.ndarray
    areas: np.ndarray

    @property
    def costs(self) -> tuple[float, ...]:
        return tuple(tier.cost for tier in self.tiers)

    def psnr(self, error: float) -> float:
        return round(-10 * float(np.log10(error)), 4)


def setting(images: list[Scene], tile: int, tiers: tuple[Tier, ...]) -> Setting:
    """The tiles of a set's images, one after another."""
    cut = [image.tiles(tile) for image in images]
    return Setting(images, tile, tiers, np.concatenate([true for true, _ in cut]), np.concatenate([areas for _, areas in cut]))


def compare(given: Setting, found: dict[str, Router]) -> dict[str, Any]:
    """PSNR and captured share of every router at every budget, and seconds of processor that it took for a million input pixels."""
    area = given.areas.sum()
    means = given.areas @ given.true / area
    result: dict[str, Any] = {
        "tiles": len(given.true),
        "alone": dict(zip(labels(given), map(given.psnr, means), strict=True)),
        "routers": {},
    }
    for name, router in found.items():
        began = time.process_time()
        told = np.concatenate([router(image, given.tile) for image in given.images])
        seconds = (time.process_time() - began) / area * 1e6
        predicted = told if told.ndim == 2 else as_errors(told, given.true, given.areas)
        rows = {f"{share:g}": judge(predicted, given.true, given.areas, given.costs, share) for share in SHARES}
        figures = {share: {"psnr": given.psnr(row.left), "captured": round(row.captured, 3)} for share, row in rows.items()}
        result["routers"][name] = {"seconds per million pixels": round(seconds, 3), **figures}
        result["chance"] = {share: given.psnr(row.chance) for share, row in rows.items()}
        result["oracle"] = {share: given.psnr(row.oracle) for share, row in rows.items()}
    return result


def labels(given: Setting) -> list[str]:
    return [tier.label for tier in given.tiers]


def against_each(given: Setting, predicted: np.ndarray) -> dict[str, Any]:
    """Each tier alone, and what routing over all of them makes of the same cost: by the scout and by the oracle, PSNR."""
    means = given.areas @ given.true / given.areas.sum()
    found = {}
    for index, tier in enumerate(given.tiers[1:], start=1):
        share = given.costs[index] / given.costs[-1]
        routed = [given.psnr(leave(told, given.true, given.areas, given.costs, share)) for told in (predicted, given.true)]
        found[tier.label] = {"cost share": round(share, 4), "alone": given.psnr(means[index]), "scout": routed[0], "oracle": routed[1]}
    return found


def grouped(given: Setting, router: Router) -> dict[str, Any]:
    """What it gains to know the halo: cost (share of all-dearest, halos and strips included) and seconds of one thread that `--lose` takes.

    Seconds are those that the tiers took for whole images, by pixels of windows.
    """
    cost, seconds, left = np.zeros((2, 2)), np.zeros(2), np.zeros(2)
    for image in given.images:
        grid = Grid(image.lr.shape[1:], Fraction(SCALE), given.tile)  # type: ignore[arg-type]
        predicted, (true, areas) = router(image, given.tile).astype(np.float64), image.tiles(given.tile)
        each = image.seconds / areas.sum()
        timed = tuple(replace(tier, cost=float(one)) for tier, one in zip(given.tiers, each, strict=True))
        cost_of, seconds_of = (cost_of_routes(grid, tiers, 4, 1) for tiers in (given.tiers, timed))
        alone = Choice(given.costs, cost_of, lose=LOSE, areas=areas)
        for index, choice in enumerate((alone, replace(alone, groups=groups(grid, given.tiers, 4, 1)))):
            routes = routing.quality(predicted, choice)
            cost[:, index] += cost_of(routes), cost_of(routing.dearest(predicted, choice))
            seconds[index] += seconds_of(routes)
            left[index] += float(areas @ np.take_along_axis(true, routes[:, None], axis=1)[:, 0])
    names = ("tiles alone", "in groups")
    return {
        name: {
            "cost share": round(cost[0, i] / cost[1, i], 4),
            "seconds": round(seconds[i], 2),
            "psnr": given.psnr(left[i] / given.areas.sum()),
        }
        for i, name in enumerate(names)
    }


def job(tiers: Sequence[str]) -> dict[str, Any]:
    """The whole job on the earth map, wall clock, everything included: the dearest tier everywhere against `--lose 0.02`."""
    found: dict[str, Any] = {}
    source = SHARED / "data" / "large" / "earth_daymap_8192x4096.jpg"
    with tempfile.TemporaryDirectory(prefix="tierscale-bench-") as folder:
        for name, options in (("dearest", ("--policy", "dearest")), (f"lose {LOSE}", ("--lose", str(LOSE)))):
            began = time.monotonic()
            command = [
                sys.executable,
                "-m",
                "jobs.cli",
                "upscale",
                str(source),
                f"{folder}/{name.split()[0]}.zarr",
                "--tiers",
                ",".join(tiers),
            ]
            done = subprocess.run([*command, *options, "--json"], stdout=subprocess.PIPE, text=True, check=True)
            told = json.loads(done.stdout)
            found[name] = {
                "seconds": round(time.monotonic() - began, 1),
                "stages": told["seconds"],
                "cost share": round(told["cost_share"], 4),
            }
    dearest, routed = found["dearest"], found[f"lose {LOSE}"]
    before = routed["stages"]["ingest"] + routed["stages"]["score"]
    found["times faster"] = round(dearest["seconds"] / routed["seconds"], 2)
    found["pre-pass, share of the dearest job"] = round(before / dearest["seconds"], 4)
    return found


def picture(results: dict[str, Any]) -> Image.Image:
    """PSNR over cost for every set, at its larger tile: chance, routers, oracle."""
    charts = []
    for kind, by_tile in results["sets"].items():
        tile, found = next(reversed(by_tile.items()))
        series = {"chance": found["chance"], "oracle": found["oracle"]}
        series |= {name: {share: row[share]["psnr"] for share in found["chance"]} for name, row in found["routers"].items()}
        lines = [Line(name, [(100 * float(share), value) for share, value in points.items()]) for name, points in series.items()]
        charts.append(chart(f"{kind}, tiles of {tile}", "multiply-adds, % of the dearest tier everywhere", "PSNR, dB", lines))
    wide, tall = charts[0].size
    sheet = Image.new("RGB", (2 * wide, -(-len(charts) // 2) * tall), "white")
    for index, one in enumerate(charts):
        sheet.paste(one, (index % 2 * wide, index // 2 * tall))
    return sheet


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All sets that were asked for."""
    names = tuple(options.tiers.split(","))
    tiers, (found, about) = load_tiers(names, Fraction(SCALE)), routers(names)
    sets: dict[str, Any] = {}
    for kind in options.sets.split(",") if options.sets else SETS:
        images = scenes(kind, names, options.images)
        for tile in SIDES[kind]:
            given = setting(images, tile, tiers)
            row = compare(given, found)
            predicted = np.concatenate([found["our scout"](image, tile) for image in images])
            row["at the cost of each tier"] = against_each(given, predicted)
            row["groups"] = grouped(given, found["our scout"])
            row["below the dearest at 0.5, dB"] = round(row["alone"][labels(given)[-1]] - row["routers"]["our scout"]["0.5"]["psnr"], 4)
            sets.setdefault(kind, {})[str(tile)] = row
            captured = {name: [row["routers"][name][f"{share:g}"]["captured"] for share in SHARES] for name in found}
            note = " (reported only)" if tile == REPORTED_ONLY else ""
            print(f"{kind}, tiles of {tile}{note}: captured at {SHARES}: {captured}", flush=True)
    return {"command": "make bench-routing", "machine": machine(), "tiers": list(names), "routers": about, "sets": sets}


def main(line: Sequence[str] | None = None) -> None:
    """Measure, and write docs/routing-bench.json and docs/routing-bench.png unless only a part was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.routing", description=__doc__.splitlines()[0], allow_abbrev=False)  # type: ignore[union-attr]
    parser.add_argument("--tiers", default=",".join(DEFAULT_TIERS[SCALE]))
    parser.add_argument("--sets", help="names with commas; all unless given")
    parser.add_argument("--images", type=int, help="the first so many of each set")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--job", action="store_true", help="the whole job on the earth map too: the time of enlarging it twice")
    parser.add_argument("--out", type=Path, help="folder for JSON and PNG (default: docs/ when all sets are measured)")
    options = parser.parse_args(line)
    torch.set_num_threads(options.threads)
    results = measure(options)
    if options.job:
        results["job on the earth map"] = job(options.tiers.split(","))
    folder = options.out or (DOCS if options.sets is None and options.images is None else None)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "routing-bench.json").write_text(json.dumps(results, indent=1) + "\n")
        picture(results).save(folder / "routing-bench.png", optimize=True)


if __name__ == "__main__":
    main()
