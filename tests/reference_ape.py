"""APE against recorded outputs of the upstream one.

Exits, what the regressor says, images, and a tiled image.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from tests.reference_file import Line, Reference
from tierscale.models.adaptive.ape.network import Ape
from tierscale.models.adaptive.ape.upscaler import ApeUpscaler, build
from tierscale.models.convert.adaptive.ape import from_upstream

# On the range 0..255 of the recorded images; of the regressor, a twenty-fifth of the margin that
# thresholds keep from it.
IMAGE, REGRESSOR = 2e-3, 1e-3


def check(reference: Reference) -> list[Line]:
    """One line for each output."""
    upscaler = build(
        from_upstream(reference.weights, reference.config, reference.mean), reference.path.name
    )
    top = float(reference.config.get("rgb_range", 255))
    with torch.inference_mode():
        lines = [
            line
            for case, settings in reference.settings.items()
            for line in (check_tiled if "patch_size_lr" in settings else check_case)(
                upscaler, reference, case, settings, top
            )
        ]
        return lines + check_exits(upscaler, reference, top)


def check_case(
    upscaler: ApeUpscaler, reference: Reference, case: str, settings: dict[str, Any], top: float
) -> list[Line]:
    """Images and exits of the patches at one threshold.

    And the regressor at the last exit on features frozen at each one's own.
    """
    patches, threshold = reference.inputs["patches"] / top, settings["exit_threshold"]
    pixels, left = upscaler.patches(patches, threshold)
    found = {
        "sr": (pixels * top, IMAGE),
        "exit_index": (left, 0.0),
        "decision_last": (frozen(upscaler, patches, left), REGRESSOR),
    }
    return [
        compare(reference, f"{case}.{kind}", *value)
        for kind, value in found.items()
        if f"{case}.{kind}" in reference.outputs
    ]


def frozen(upscaler: ApeUpscaler, patches: Tensor, left: Tensor) -> Tensor:
    """What the regressor says of the features that each patch stopped with.

    Or else of those at the last exit: (N,).
    """
    capacity = exits(upscaler.method, patches - upscaler.plain.mean)
    return capacity[left, torch.arange(len(patches))]  # -1 is the last exit


def exits(method: Ape, centred: Tensor) -> Tensor:
    """The regressor at all exits, (exits, N)."""
    return method(centred).capacity


def check_exits(upscaler: ApeUpscaler, reference: Reference, top: float) -> list[Line]:
    """What the regressor says at all exits and the images there, nothing leaving early."""
    lines = []
    patches = reference.inputs.get("patches")
    if "all_exits.ic" in reference.outputs and patches is not None:
        lines.append(
            compare(
                reference,
                "all_exits.ic",
                exits(upscaler.method, patches / top - upscaler.plain.mean),
                REGRESSOR,
            )
        )
    if "all_exits.sr" in reference.outputs and patches is not None:
        count = reference.outputs["all_exits.sr"].shape[1]
        windows = patches[:count] / top
        images = upscaler.method(windows - upscaler.plain.mean).images
        completed = [upscaler.plain.complete(image, windows) * top for image in images]
        lines.append(compare(reference, "all_exits.sr", torch.stack(completed), IMAGE))
    return lines


def check_tiled(
    upscaler: ApeUpscaler, reference: Reference, case: str, settings: dict[str, Any], top: float
) -> list[Line]:
    """The tiled run: patches that step over the image while they fit, the rest dropped.

    Overlaps summed, then halved seam by seam.
    """
    image, size, step = (
        reference.inputs[f"{case}.image"] / top,
        settings["patch_size_lr"],
        settings["step_lr"],
    )
    rows, columns = (range(0, length - size + 1, step) for length in image.shape[2:])
    patches = torch.cat([image[:, :, y : y + size, x : x + size] for y in rows for x in columns])
    pixels, left = upscaler.patches(patches, settings["exit_threshold"])
    scale = upscaler.method.scale
    join_path = join(pixels * top, len(rows), len(columns), scale * step, scale * size)
    found = {"sr": (join_path, IMAGE), "exit_index": (left.view(len(rows), len(columns)), 0.0)}
    return [
        compare(reference, f"{case}.{kind}", *value)
        for kind, value in found.items()
        if f"{case}.{kind}" in reference.outputs
    ]


def join(patches: Tensor, rows: int, columns: int, step: int, size: int) -> Tensor:
    """Patches (rows * columns, C, size, size) as one image (1, C, H, W).

    Sums, with the overlap strip before each seam halved.
    """
    height, width = (step * (count - 1) + size for count in (rows, columns))
    join_path = patches.new_zeros(1, patches.shape[1], height, width)
    for index, patch in enumerate(patches):
        y, x = index // columns * step, index % columns * step
        join_path[0, :, y : y + size, x : x + size] += patch
    for x in seams(columns, step):
        join_path[:, :, :, x : x + size - step] /= 2
    for y in seams(rows, step):
        join_path[:, :, y : y + size - step] /= 2
    return join_path


def seams(count: int, step: int) -> Iterable[int]:
    """Where the overlap of each patch but the first with the one before begins."""
    return range(step, step * count, step)


def compare(reference: Reference, key: str, made: Tensor | None, tolerance: float) -> Line:
    """The line of one output."""
    wanted = reference.outputs[key]
    if made is None or made.shape != wanted.shape:
        return Line(f"out.{key}", float("inf"), tolerance, False)
    error = (made.to(wanted.dtype) - wanted).abs().max().item()
    return Line(f"out.{key}", error, tolerance, error <= tolerance)
