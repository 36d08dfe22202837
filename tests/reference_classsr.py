"""ClassSR against recorded outputs of the upstream network."""

import torch
from torch import Tensor

from tests.reference_dense import compare
from tests.reference_file import Line, Reference
from tierscale.models.adaptive.classsr.upscaler import ClassSrUpscaler, build
from tierscale.models.convert.adaptive.classsr import from_upstream
from tierscale.models.runtime.patches import SIDE, STEP

TOLERANCE = 2e-5
# On the whole image, 0..255: a value on the border between two 8-bit ones may round the other way,
# and few do.
ROUNDED, FEW = 1.0, 1e-3


def check(reference: Reference) -> list[Line]:
    """One line for each output.

    Logits, probabilities, classes and pixels of the tiles, and the run on a whole image.
    """
    upscaler = build(
        from_upstream(reference.weights, reference.config, reference.mean), reference.path.name
    )
    with torch.inference_mode():
        found = on_tiles(upscaler, reference.inputs["patches"])
        if "tile.image" in reference.inputs:
            tile = reference.settings.get("tile", {})
            found |= on_image(
                upscaler,
                reference.inputs["tile.image"],
                tile.get("patch", SIDE),
                tile.get("step", STEP),
            )
    return [
        compared(key, made, reference.outputs[key])
        for key, made in found.items()
        if key in reference.outputs
    ]


def on_tiles(upscaler: ClassSrUpscaler, tiles: Tensor) -> dict[str, Tensor]:
    """What the upstream network makes of tiles, each through its branch.

    The first also through all of them, as in training.
    """
    logits = upscaler.classifier(tiles)
    shares, classes = torch.softmax(logits, dim=1), upscaler.decide(tiles)
    chosen = [upscaler.enlarge(tiles[i : i + 1], int(index)) for i, index in enumerate(classes)]
    every = [share * upscaler.enlarge(tiles[:1], index) for index, share in enumerate(shares[0])]
    weighed = torch.stack(every).sum(dim=0)
    return {
        "class_logit": logits,
        "class_prob": shares,
        "class_index": classes,
        "sr": torch.cat(chosen),
        "weighted_sum_sr": weighed,
    }


def on_image(upscaler: ClassSrUpscaler, image: Tensor, side: int, step: int) -> dict[str, Tensor]:
    """The upstream run.

    Tiles from the corner while they fit, rounded to 8 bits, summed, and each overlap halved.
    """
    tops, lefts = (range(0, length - side + 1, step) for length in image.shape[-2:])
    scale, strip = upscaler.scale, (side - step) * upscaler.scale
    tiles = torch.cat(
        [image[:, :, top : top + side, left : left + side] for top in tops for left in lefts]
    )
    classes = upscaler.decide(tiles)
    total = image.new_zeros(1, 3, (tops[-1] + side) * scale, (lefts[-1] + side) * scale)
    corners = [(top * scale, left * scale) for top in tops for left in lefts]
    for index, (top, left) in enumerate(corners):
        made = upscaler.enlarge(tiles[index : index + 1], int(classes[index]))
        total[:, :, top : top + side * scale, left : left + side * scale] += (
            made.clamp(0, 1) * 255
        ).round()
    for left in lefts[1:]:
        total[:, :, :, left * scale : left * scale + strip] /= 2
    for top in tops[1:]:
        total[:, :, top * scale : top * scale + strip] /= 2
    return {"tile.sr_rgb255": total, "tile.class_index": classes.view(len(tops), len(lefts))}


def compared(key: str, made: Tensor, wanted: Tensor) -> Line:
    """Classes must be equal, the whole image nearly so, all else within float32's rounding."""
    if key.endswith("class_index"):
        return compare(f"out.{key}", made.double(), wanted.double(), 0.0)
    if key != "tile.sr_rgb255" or made.shape != wanted.shape:
        return compare(f"out.{key}", made, wanted, TOLERANCE, 1e-5)
    error = (made - wanted).abs()
    return Line(
        f"out.{key}",
        error.max().item(),
        ROUNDED,
        error.max().item() <= ROUNDED and (error > 0.01).double().mean().item() <= FEW,
    )
