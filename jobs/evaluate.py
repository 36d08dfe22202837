"""`tierscale evaluate`: images are shrunk, enlarged again, and compared with themselves."""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from tierscale.jobs.cli.exits import Ended
from tierscale.jobs.cli.options import answering, choosing, to_options
from tierscale.jobs.cli.terminal import emit, say
from tierscale.models.contract.metrics import psnr, ssim
from tierscale.models.train.shrink import shrink
from tierscale.pipeline.dataset.manifest import Manifest
from tierscale.pipeline.errors import Damaged, Refused
from tierscale.pipeline.formats.registry import open_image
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.routing.costs import cost_share
from tierscale.pipeline.run.array import enlarge_array
from tierscale.pipeline.run.tiers import load_tiers

PROTOCOL = "rgb, shave=scale, float lr"
SSIM_WINDOW = 11
FIGURES = ("psnr", "ssim", "cost_share", "seconds")


def evaluate_folder(folder: str, options: Options) -> dict[str, Any]:
    """PSNR (dB), SSIM, cost share and seconds of each image, and their means.

    Grey images and failed ones are listed and stay out of the means. A deadline is that of each
    image. Refused: the folder holds no images, or the tiers do not work for any.
    """
    files = [Path(row.source) for row in Manifest.scan(folder)]
    if not files:
        raise Refused(f"{folder} holds no images of a known format; name a folder that does")
    # Tiers that no image could be enlarged with are refused at once.
    load_tiers(options.tier_labels, options.scale)
    images = [_listed(path, options) for path in files]
    failed = sum(image["error"] is not None for image in images)
    coloured = [image for image in images if image["error"] is None and not image["grey"]]
    return {
        "status": "failed" if failed else "done",
        "images": images,
        "mean": (
            {key: float(np.mean([image[key] for image in coloured])) for key in FIGURES}
            if coloured
            else {}
        ),
        "protocol": PROTOCOL,
        "tiers": list(options.tier_labels),
        "error": f"{failed} of {len(images)} images failed" if failed else None,
    }


def _listed(path: Path, options: Options) -> dict[str, Any]:
    """The figures of one image, or why there are none: one image never stops the others."""
    try:
        return {**evaluate_image(path, options), "error": None}
    except (Refused, Damaged) as error:
        return {"name": path.name, **dict.fromkeys(FIGURES), "grey": None, "error": str(error)}


def evaluate_image(path: Path, options: Options) -> dict[str, Any]:
    """The figures of one image, cropped about its centre to whole multiples of the scale.

    Refused: it is too small, or has neither one nor three colours.
    """
    hr = _cropped(_read(path), options)
    scale = options.scale
    shave = int(np.ceil(float(scale)))
    if min(hr.shape[1:]) < 2 * shave + SSIM_WINDOW:
        raise Refused(
            f"{path} leaves {hr.shape[2]}x{hr.shape[1]} pixels, too few to compare at scale"
            f" {scale}; take it out of the folder, or give a smaller --scale"
        )
    lr = shrink(torch.from_numpy(hr), scale).numpy()
    began = time.perf_counter()
    enlarged = enlarge_array(lr, replace(options, value_range=(0.0, 1.0)), "cyx")
    seconds = time.perf_counter() - began
    truth, result = torch.from_numpy(hr), torch.from_numpy(enlarged.pixels)
    return {
        "name": path.name,
        # Equal images have no finite PSNR, and JSON has no infinity.
        "psnr": min(psnr(result, truth, shave), 100.0),
        "ssim": ssim(result, truth, shave),
        "cost_share": cost_share(enlarged.plan, enlarged.cost),
        "seconds": seconds,
        "grey": len(hr) == 1,
    }


def _read(path: Path) -> np.ndarray:
    """An image's colours (1 or 3, h, w), float32, 0..1; alpha is left out."""
    with open_image(path) as image:
        pixels = image.read(0, image.shape[1], 0, image.shape[2])
        if image.dtype.kind != "u":
            raise Refused(
                f"{path} holds {image.dtype}; evaluation takes 8 and 16 bit images; convert it"
            )
        colours = pixels[: len(pixels) - (image.alpha is not None)]
        if len(colours) not in (1, 3):
            raise Refused(
                f"{path} holds {len(colours)} channels; evaluation compares images of one or three"
                " colours; take it out of the folder"
            )
        return colours.astype(np.float32) / np.float32(np.iinfo(image.dtype).max)


def _cropped(hr: np.ndarray, options: Options) -> np.ndarray:
    step = options.scale.numerator
    _, height, width = hr.shape
    tall, wide = height // step * step, width // step * step
    top, left = (height - tall) // 2, (width - wide) // 2
    return np.ascontiguousarray(hr[:, top : top + tall, left : left + wide])


def report(content: Mapping[str, Any]) -> list[str]:
    """The figures, in lines for a person."""
    lines = [f"{'image':<28} {'PSNR':>7} {'SSIM':>7} {'cost':>6} {'seconds':>8}"]
    for image in [*content["images"], {"name": "mean", "grey": False, **content["mean"]}]:
        if image.get("error"):
            lines.append(f"{image['name']:<28} failed: {image['error']}")
        elif "psnr" in image:
            grey = " (grey, not in the mean)" if image["grey"] else ""
            figures = (
                f"{image['psnr']:>7.3f} {image['ssim']:>7.4f} {image['cost_share']:>6.1%}"
                f" {image['seconds']:>8.2f}"
            )
            lines.append(f"{image['name']:<28} {figures}{grey}")
    return lines


@click.command("evaluate")
@click.option(
    "--hr",
    "folder",
    required=True,
    metavar="DIR",
    help="Folder of high-resolution images; they are shrunk, enlarged again, and compared.",
)
@choosing
@click.option(
    "--tile", type=int, default=128, show_default=True, help="Side of a tile in input pixels."
)
@answering
def command(folder: str, as_json: bool, debug: bool, **cli_args: Any) -> None:
    """Measure PSNR and SSIM of tiers and policies on a folder of images.

    Both are of RGB, with edges of one scale cut off; the input is shrunk by bicubic and kept in
    float. --deadline is for each image by itself.
    """
    content = evaluate_folder(folder, to_options(cli_args))
    emit(as_json, content, report(content))
    if content["status"] == "failed":
        say(f"tierscale: {content['error']}")
        raise Ended(1)
