"""What a model card says of quality and speed: `python -m models.train.measure fsrcnn-x4 --eval DIR`."""

import argparse
import json
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

import models
from models.quality import psnr, ssim
from models.train.degrade import shrink
from models.train.photos import centre_crop, image_files, is_grey, read_image
from models.upscaler import Placement, Upscaler

# Left out of means, as in the published measurements: the one image that is grey at its source.
LEFT_OUT = frozenset({("Set14", "img_003")})


def quality(upscaler: Upscaler, folder: Path, scale: int) -> dict[str, tuple[float, float]]:
    """Mean PSNR in dB and SSIM over images of a folder, enlarged whole; LR kept in float, shave = scale.

    "published": those that published measurements count. "coloured": those that `tierscale evaluate` counts, which leaves out every
    file with a single channel.
    """
    published, coloured = [], []
    for path in image_files(folder):
        hr = centre_crop(read_image(path), scale) / 255
        lr = shrink(hr, scale)
        with torch.inference_mode():
            result = upscaler(lr[None], Placement.whole((lr.shape[-2], lr.shape[-1]), Fraction(scale))).pixels[0]
        found = (psnr(result, hr, scale), ssim(result, hr, scale))
        if (folder.name, path.stem) not in LEFT_OUT:
            published.append(found)
        if not is_grey(path):
            coloured.append(found)
    return {name: tuple(np.mean(rows, axis=0).tolist()) for name, rows in (("published", published), ("coloured", coloured)) if rows}


def milliseconds(upscaler: Upscaler, scale: int, side: int, repeats: int = 3) -> float:
    """Milliseconds of one thread's work for each million input pixels, on a square window; the best of some."""
    window, place, best = torch.rand(1, 3, side, side), Placement.whole((side, side), Fraction(scale)), np.inf
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
    """PSNR and SSIM on each sub-folder of `folder`, cost and speed, of an upscaler at a scale."""
    upscaler = models.load(name)
    sets = {sub.name: quality(upscaler, sub, scale) for sub in sorted(folder.iterdir()) if sub.is_dir()}
    return {
        "psnr": {key: round(value["published"][0], 3) for key, value in sets.items()},
        "ssim": {key: round(value["published"][1], 4) for key, value in sets.items()},
        "psnr_without_grey": {key: round(value["coloured"][0], 3) for key, value in sets.items() if "coloured" in value},
        "ssim_without_grey": {key: round(value["coloured"][1], 4) for key, value in sets.items() if "coloured" in value},
        "cost_per_pixel": upscaler.cost(Fraction(scale)),
        "milliseconds_per_million_pixels": {str(side): round(milliseconds(upscaler, scale, side)) for side in (178, 306, 562)},
        "protocol": "rgb, shave = scale, float lr",
    }


def main() -> int:
    """Measure and add to the card in the zoo."""
    parser = argparse.ArgumentParser(prog="python -m models.train.measure", description=__doc__, allow_abbrev=False)
    parser.add_argument("name")
    parser.add_argument("--scale", type=int, help="needed for bicubic only")
    parser.add_argument("--eval", type=Path, required=True, metavar="DIR", help="folder of folders of images")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    try:
        scales = models.load(options.name).scales
        scale = options.scale or (int(min(scales)) if scales else 4)
        found = measure(options.name, scale, options.eval)
    except ValueError as error:
        print(f"measure: {error}", file=sys.stderr)
        return 2
    print(options.name, json.dumps(found), flush=True)
    card = models.ZOO / f"{options.name}.json"
    if card.is_file() and (scales or scale == 4):  # bicubic's card is for scale 4
        card.write_text(json.dumps({**json.loads(card.read_text()), **found}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
