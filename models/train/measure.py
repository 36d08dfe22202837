"""What a model card says of quality, speed and fidelity.

`python -m tierscale.models.train.measure fsrcnn-x4 --eval DIR` adds it to the card in the zoo. Of
file:PATH only the fidelity is added, to PATH's card beside it.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tierscale.models import registry, weights
from tierscale.models.contract.checkpoints import write_whole
from tierscale.models.contract.metrics import psnr, ssim
from tierscale.models.contract.upscaler import Placement, Upscaler
from tierscale.models.train.bounds import measure_bound
from tierscale.models.train.data.photos import centre_crop, image_files, is_grey, read_image
from tierscale.models.train.data.shrink import shrink

# Left out of means, as papers do: the one image that is grey at its source.
LEFT_OUT = frozenset({("Set14", "img_003")})
# Controls that the papers leave at 0, and efforts that cards tell of.
ZERO_IN_PAPERS = ("k", "bias")
EFFORTS = (0.25, 0.5, 0.75)


@dataclass(frozen=True, slots=True)
class Quality:
    """Means over images: PSNR in dB, SSIM, and multiply-adds executed for each input pixel."""

    psnr: float
    ssim: float
    cost: float


def quality(
    upscaler: Upscaler,
    folder: Path,
    scale: Fraction | int,
    effort: float = 1.0,
    settings: Mapping[str, float] = {},
) -> dict[str, Quality]:
    """Means over images of a folder, enlarged whole; LR kept in float, shave = scale, rounded up.

    "papers": over those that papers count. "coloured": over those that `tierscale evaluate` counts,
    which leaves out every file with a single channel.
    """
    papers: list[tuple[float, float, float]] = []
    coloured: list[tuple[float, float, float]] = []
    exact = Fraction(scale)
    shave = math.ceil(exact)
    for path in image_files(folder):
        hr = centre_crop(read_image(path), exact.numerator) / 255
        lr = shrink(hr, exact)
        with torch.inference_mode():
            result = upscaler(
                lr[None], Placement.whole((lr.shape[-2], lr.shape[-1]), exact), effort, settings
            )
        row = (
            psnr(result.pixels[0], hr, shave),
            ssim(result.pixels[0], hr, shave),
            result.macs.item() / lr[0].numel(),
        )
        if (folder.name, path.stem) not in LEFT_OUT:
            papers.append(row)
        if not is_grey(path):
            coloured.append(row)
    return {
        name: Quality(*np.mean(rows, axis=0).tolist())
        for name, rows in (("papers", papers), ("coloured", coloured))
        if rows
    }


def milliseconds(upscaler: Upscaler, scale: int, side: int, repeats: int = 3) -> float:
    """Milliseconds of one thread's work for each million input pixels, on a square window.

    The best of some.
    """
    window, place = torch.rand(1, 3, side, side), Placement.whole((side, side), Fraction(scale))
    best = np.inf
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.inference_mode():
        for _ in range(repeats):
            started = time.process_time()
            upscaler(window, place)
            best = min(best, time.process_time() - started)
    torch.set_num_threads(threads)
    return best / side**2 * 1e9


def measure(name: str, scale: int, folder: Path) -> dict[str, Any]:
    """PSNR and SSIM on each sub-folder of `folder`, and cost, of an upscaler at a scale.

    Of a method at some efforts too.
    """
    upscaler = registry.load(name)
    folders = [sub for sub in sorted(folder.iterdir()) if sub.is_dir()]
    sets = {sub.name: quality(upscaler, sub, scale) for sub in folders}
    coloured = {key: value["coloured"] for key, value in sets.items() if "coloured" in value}
    card: dict[str, Any] = {
        "psnr": {key: round(value["papers"].psnr, 3) for key, value in sets.items()},
        "ssim": {key: round(value["papers"].ssim, 4) for key, value in sets.items()},
        "psnr_without_grey": {key: round(value.psnr, 3) for key, value in coloured.items()},
        "ssim_without_grey": {key: round(value.ssim, 4) for key, value in coloured.items()},
        "cost_per_pixel": upscaler.cost(Fraction(scale)),
        "protocol": "rgb, shave = scale, float lr",
    }
    settings: dict[str, tuple[float, Mapping[str, float]]] = {}
    if upscaler.control in ZERO_IN_PAPERS:
        settings[f"{upscaler.control} = 0"] = (1.0, {upscaler.control: 0.0})
    if upscaler.efforts is not None:
        floor = round(upscaler.efforts.floor, 3)  # what it runs at when it is asked for less
        settings |= {
            f"effort {effort:g}": (effort, {})
            for effort in sorted({max(effort, floor) for effort in EFFORTS})
        }
    for label, (effort, own) in settings.items():
        some = {sub.name: quality(upscaler, sub, scale, effort, own)["papers"] for sub in folders}
        card[label] = {
            "psnr": {key: round(value.psnr, 3) for key, value in some.items()},
            "share_of_full_cost": {
                key: round(value.cost / sets[key]["papers"].cost, 3) for key, value in some.items()
            },
        }
    return card


def speed(name: str, scale: int) -> dict[str, Any]:
    """Milliseconds for each million input pixels on square windows of three sizes."""
    upscaler = registry.load(name)
    return {
        "milliseconds_per_million_pixels": {
            str(side): round(milliseconds(upscaler, scale, side)) for side in (178, 306, 562)
        }
    }


def main() -> int:
    """Measure and add to the card in the zoo."""
    parser = argparse.ArgumentParser(
        prog="python -m tierscale.models.train.measure", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("name")
    parser.add_argument("--scale", type=int, help="needed for bicubic only")
    parser.add_argument(
        "--eval", type=Path, required=True, metavar="DIR", help="folder of folders of images"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--only",
        choices=("quality", "speed", "fidelity"),
        help="of the three; speed wants a machine that does nothing else",
    )
    parser.add_argument("--most", type=int, help="images of each folder, for fidelity")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    try:
        fresh, path = measured(options)
    except ValueError as error:
        print(f"measure: {error}", file=sys.stderr)
        return 2
    print(options.name, json.dumps(fresh), flush=True)
    if path is not None:
        text = json.dumps({**weights.card(options.name), **fresh}, indent=2)
        write_whole(path, f"{text}\n".encode())
    return 0


def measured(options: argparse.Namespace) -> tuple[dict[str, Any], Path | None]:
    """What was asked for, and the card that it belongs to. ValueError: no such network."""
    name, only, own = options.name, options.only, options.name.startswith("file:")
    upscaler = registry.load(name)
    scale = options.scale or (int(min(upscaler.scales)) if upscaler.scales else 4)
    fresh: dict[str, Any] = {}
    if only in (None, "quality") and not own:
        fresh |= measure(name, scale, options.eval)
    if only in (None, "speed") and not own:
        fresh |= speed(name, scale)
    if only in (None, "fidelity"):
        card = weights.card(name)
        fresh["fidelity"] = measure_bound(name, card, options.eval, options.most)
    # Bicubic's card is for scale 4.
    path = weights.card_path(name) if upscaler.scales or scale == 4 else None
    return fresh, path if own or (path is not None and path.is_file()) else None


if __name__ == "__main__":
    sys.exit(main())
