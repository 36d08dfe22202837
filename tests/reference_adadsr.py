"""AdaDSR against recorded outputs of the upstream one: depths and images, skipped and dense."""

from fractions import Fraction

import torch
from torch import Tensor

from tests.reference_file import Line, Reference
from tierscale.models.adaptive.adadsr.upscaler import build
from tierscale.models.contract.upscaler import Placement
from tierscale.models.convert.adaptive.adadsr import from_upstream

# On the range 0..255 of the recorded images; of depths, in blocks.
IMAGE, DEPTH, TOP = 2e-3, 1e-4, 255.0


def check(reference: Reference) -> list[Line]:
    """One line for each output.

    An image's error is the larger one of skipping and of computing all blocks everywhere.
    """
    upscaler = build(
        from_upstream(reference.weights, reference.config, reference.mean), reference.path.name
    )
    lines = []
    for case, settings in reference.settings.items():
        lr, budget = (
            reference.inputs[f"{case.partition('.')[0]}.lr"] / TOP,
            settings["depth_budget"],
        )
        with torch.inference_mode():
            place = Placement(
                Fraction(upscaler.method.scale), (lr.shape[2], lr.shape[3]), ((0, 0),) * len(lr)
            )
            made = upscaler(lr, place, settings={"depth": budget})
            image, depths = upscaler.method(
                lr - upscaler.plain.mean, torch.full((len(lr),), budget)
            )
            dense = upscaler.plain.complete(image, lr)
        found = {
            "depth_map": ((made.choice, depths), DEPTH),
            "sr": ((made.pixels * TOP, dense * TOP), IMAGE),
        }
        for kind, (both, tolerance) in found.items():
            if f"{case}.{kind}" in reference.outputs:
                lines.append(compare(reference, f"{case}.{kind}", both, tolerance))
    return lines


def compare(
    reference: Reference, key: str, both: tuple[Tensor | None, Tensor], tolerance: float
) -> Line:
    """The line of one output."""
    wanted = reference.outputs[key]
    if any(made is None or made.shape != wanted.shape for made in both):
        return Line(f"out.{key}", float("inf"), tolerance, False)
    error = max((made - wanted).abs().max().item() for made in both if made is not None)
    return Line(f"out.{key}", error, tolerance, error <= tolerance)
