"""CARN and FSRCNN as plain networks, against recorded outputs of the upstream ones."""

from fractions import Fraction

import torch
from torch import Tensor

from tests.reference_file import Line, Reference
from tierscale.models.contract.upscaler import Placement
from tierscale.models.convert.upstream import UPSTREAM
from tierscale.models.registry import UPSCALERS
from tierscale.models.runtime.plain import PlainUpscaler

ABSOLUTE, RELATIVE = 2e-5, 1e-5


def check(reference: Reference) -> list[Line]:
    """One line for each out.CASE.sr."""
    checkpoint = UPSTREAM[reference.config["name"]](
        reference.weights, reference.config, reference.mean
    )
    upscaler = UPSCALERS[checkpoint.spec.network](checkpoint, reference.path.name)
    assert isinstance(upscaler, PlainUpscaler)
    lines = []
    for key, wanted in reference.outputs.items():
        case, _, kind = key.rpartition(".")
        if kind != "sr" or f"{case}.lr" not in reference.inputs:
            continue
        made = enlarge(upscaler, reference.inputs[f"{case}.lr"], wanted)
        lines.append(compare(f"out.{key}", made, wanted, ABSOLUTE, RELATIVE))
    return lines


def enlarge(upscaler: PlainUpscaler, lr: Tensor, wanted: Tensor) -> Tensor:
    """Enlarge as the upstream network does.

    It is one or two pixels too large for FSRCNN at scales other than 4.
    """
    scale, (height, width) = upscaler.scale, (lr.shape[-2], lr.shape[-1])
    surplus = wanted.shape[-1] - scale * width
    with torch.inference_mode():
        if surplus == 0:
            return upscaler(lr, Placement.whole((height, width), Fraction(scale))).pixels
        network = upscaler.network
        network.enlarge.padding, network.enlarge.output_padding = (3, 3), (1, 1)  # type: ignore[union-attr, assignment]
        return network(lr - upscaler.mean) + upscaler.mean


def compare(key: str, made: Tensor, wanted: Tensor, absolute: float, relative: float = 0.0) -> Line:
    """The line of a tensor whose values may differ by `absolute` and by `relative` of their
    size.
    """
    if made.shape != wanted.shape:
        return Line(key, float("inf"), absolute, False)
    error = (made - wanted).abs()
    within = bool((error <= absolute + relative * wanted.abs()).all())
    return Line(key, error.max().item(), absolute, within)
