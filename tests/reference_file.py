"""One file of recorded weights, inputs and outputs of a upstream network.

And how a comparison with it is told.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from tierscale.models import registry
from tierscale.models.contract.checkpoints import digest_file, write_checkpoint
from tierscale.models.contract.efforts import Efforts, write_efforts
from tierscale.models.contract.upscaler import Adjustable
from tierscale.models.convert.upstream import UPSTREAM
from tierscale.models.runtime.patches import STEP
from tierscale.models.train import calibrate


@dataclass(frozen=True, slots=True)
class Reference:
    """A reference file.

    config: constructor arguments of the upstream network. settings: what was asked in each case,
    or a text. weights: by upstream name. inputs, outputs: by key, without "in." and "out.". mean:
    of the normalisation, zeros where none is told.
    """

    path: Path
    method: str
    config: dict[str, Any]
    settings: Any
    weights: dict[str, Tensor]
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    mean: tuple[float, float, float]
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Line:
    """One checked output tensor.

    error: the largest that counts; passed: within all bounds that hold for the key.
    """

    key: str
    error: float
    tolerance: float
    passed: bool


def read_reference(path: Path) -> Reference:
    """Read a file of the layout that the reference data describes."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - safe_open is no mapping

    def part(prefix: str) -> dict[str, Tensor]:
        return {
            key.removeprefix(prefix): tensor
            for key, tensor in tensors.items()
            if key.startswith(prefix)
        }

    def maybe_json(text: str) -> Any:
        try:
            return json.loads(text)
        except ValueError:
            return text

    normalisation = maybe_json(metadata.get("normalisation", "{}"))
    red, green, blue = (
        normalisation.get("mean", (0.0, 0.0, 0.0))
        if isinstance(normalisation, dict)
        else (0.0, 0.0, 0.0)
    )
    return Reference(
        path,
        metadata["method"],
        json.loads(metadata["config"]),
        maybe_json(metadata["settings"]),
        part("sd."),
        part("in."),
        part("out."),
        (red, green, blue),
        metadata,
    )


def calibrated(shared: Path, name: str, folder: Path, lower: Mapping[str, float]) -> str:
    """The upstream network of a reference file as a tier file:PATH in `folder`.

    With a table of efforts from a few photos.

    lower: what is taken from some of its weights, where random ones decide alike for all that they
    see.
    """
    recorded, file = (
        read_reference(shared / "reference" / f"{name}.safetensors"),
        folder / f"{name}.safetensors",
    )
    checkpoint = UPSTREAM[recorded.method.lower()](recorded.weights, recorded.config, recorded.mean)
    write_checkpoint(
        file,
        replace(
            checkpoint,
            tensors={key: t - lower.get(key, 0) for key, t in checkpoint.tensors.items()},
        ),
    )
    tier = f"file:{file}"
    upscaler = registry.load(tier)
    if isinstance(upscaler, Adjustable) and upscaler.efforts is None and upscaler.control:
        scale = Fraction(4) if upscaler.scales is None else min(upscaler.scales)
        sampling = calibrate.Sampling(shared / "data" / "train", 2 * STEP, 12, 0)
        windows = calibrate.crops(sampling, scale)
        settings, shares = calibrate.measure(upscaler, windows, scale)
        write_efforts(file, Efforts(upscaler.control, settings, shares, digest_file(file), {}))
    return tier
