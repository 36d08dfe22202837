"""`tierscale evaluate`: images are shrunk, enlarged again, and compared with themselves."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from tierscale.jobs.cli.exits import Ended
from tierscale.jobs.cli.options import answering, choosing, to_options
from tierscale.jobs.cli.terminal import emit, say
from tierscale.models.contract.metrics import psnr, ssim
from tierscale.models.contract.upscaler import Placement
from tierscale.models.runtime.resample import resample
from tierscale.models.train.data.degradations import degrade, parse_degradation, seeded
from tierscale.models.train.data.shrink import shrink
from tierscale.pipeline.dataset.manifest import Manifest
from tierscale.pipeline.errors import Damaged, Refused
from tierscale.pipeline.formats.registry import open_image
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.routing.costs import cost_share
from tierscale.pipeline.run.array import enlarge_array
from tierscale.pipeline.run.tiers import load_tiers

PROTOCOL = "rgb, shave=scale, float lr"
SSIM_WINDOW = 11
FIGURES = ("psnr", "ssim", "bicubic", "cost_share", "seconds")


def evaluate_folder(
    folder: str, options: Options, degradation: str | None = None
) -> dict[str, Any]:
    """PSNR (dB), SSIM, bicubic's PSNR, cost share and seconds of each image, and their means.

    "mean" leaves out grey images, "mean_all" counts them; failed ones are listed and in neither. A
    deadline is that of each image. degradation: see degradations.degrade; None: the input
    is kept in float. Refused: the folder holds no images, the tiers do not work for any, or there
    is no such degradation.
    """
    if degradation is not None:
        try:
            parse_degradation(degradation)
        except ValueError as error:
            raise Refused(f"--degrade: {error}") from error
    files = [Path(row.source) for row in Manifest.scan(folder)]
    if not files:
        raise Refused(f"{folder} holds no images of a known format; name a folder that does")
    # Tiers that no image could be enlarged with are refused at once.
    load_tiers(options.tier_labels, options.scale)
    images = [_listed(path, options, degradation) for path in files]
    failed = sum(image["error"] is not None for image in images)
    good = [image for image in images if image["error"] is None]
    return {
        "status": "failed" if failed else "done",
        "images": images,
        "mean": _mean([image for image in good if not image["grey"]]),
        "mean_all": _mean(good),
        "protocol": PROTOCOL,
        "degrade": degradation,
        "tiers": list(options.tier_labels),
        "error": f"{failed} of {len(images)} images failed" if failed else None,
    }


def _mean(images: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Means of the figures; none where there are no images."""
    if not images:
        return {}
    return {key: float(np.mean([image[key] for image in images])) for key in FIGURES}


def _listed(path: Path, options: Options, degradation: str | None) -> dict[str, Any]:
    """The figures of one image, or why there are none: one image never stops the others."""
    try:
        return {**evaluate_image(path, options, degradation), "error": None}
    except (Refused, Damaged) as error:
        return {"name": path.name, **dict.fromkeys(FIGURES), "grey": None, "error": str(error)}


def evaluate_image(path: Path, wanted: Options, degradation: str | None = None) -> dict[str, Any]:
    """The figures of one image, cropped about its centre to whole multiples of the scale.

    degradation: seeded by the file's name; None: the input is kept in float.
    Refused: it is too small, or has neither one nor three colours.
    """
    hr = _cropped(_read(path), wanted)
    scale = wanted.scale
    shave = int(np.ceil(float(scale)))
    if min(hr.shape[1:]) < 2 * shave + SSIM_WINDOW:
        raise Refused(
            f"{path} leaves {hr.shape[2]}x{hr.shape[1]} pixels, too few to compare at scale"
            f" {scale}; take it out of the folder, or give a smaller --scale"
        )
    truth = torch.from_numpy(hr)
    lr = shrink(truth, scale)
    pixels, options, values = lr.numpy(), wanted.altered(value_range=(0.0, 1.0)), 1.0
    if degradation is not None:
        lr = degrade(lr, degradation, seeded(path.name))
        # As a file would hold them, so that the family of networks is decided as for a file.
        pixels, options, values = (lr * 255).round().byte().numpy(), wanted, 255.0
    place = Placement.whole((lr.shape[-2], lr.shape[-1]), scale)
    plain = resample(lr[None], place, "bicubic")[0]
    began = time.perf_counter()
    enlarged = enlarge_array(pixels, options, "cyx")
    seconds = time.perf_counter() - began
    result = torch.from_numpy(enlarged.pixels) / values
    return {
        "name": path.name,
        # Equal images have no finite PSNR, and JSON has no infinity.
        "psnr": min(psnr(result, truth, shave), 100.0),
        "ssim": ssim(result, truth, shave),
        "bicubic": min(psnr(plain.clamp(0, 1), truth, shave), 100.0),
        "cost_share": cost_share(enlarged.plan, enlarged.cost),
        "seconds": seconds,
        "grey": len(hr) == 1,
        "family": enlarged.plan.family,
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
    lines = [f"{'image':<28} {'PSNR':>7} {'bicubic':>7} {'SSIM':>7} {'cost':>6} {'seconds':>8}"]
    for image in [*content["images"], {"name": "mean", "grey": False, **content["mean"]}]:
        if image.get("error"):
            lines.append(f"{image['name']:<28} failed: {image['error']}")
        elif "psnr" in image:
            grey = " (grey, not in the mean)" if image["grey"] else ""
            figures = (
                f"{image['psnr']:>7.3f} {image['bicubic']:>7.3f} {image['ssim']:>7.4f}"
                f" {image['cost_share']:>6.1%}"
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
@click.option(
    "--degrade",
    "degradation",
    metavar="KIND",
    help=(
        "Damage the small images first: blurS (sigma in pixels), grainS (levels), jpegQ (quality),"
        " joined by + and applied in the order given, such as blur1+grain4+jpeg60; clean only"
        " rounds them to 8 bits (default: they are kept in float)."
    ),
)
@answering
def command(
    folder: str, degradation: str | None, as_json: bool, debug: bool, **cli_args: Any
) -> None:
    """Measure PSNR and SSIM of tiers and policies on a folder of images.

    Both are of RGB, with edges of one scale cut off; the input is shrunk by bicubic and kept in
    float. --deadline is for each image by itself.
    """
    content = evaluate_folder(folder, to_options(cli_args), degradation)
    emit(as_json, content, report(content))
    if content["status"] == "failed":
        say(f"tierscale: {content['error']}")
        raise Ended(1)
