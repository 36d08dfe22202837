"""One knob for all adaptive methods: effort, the share of the full computation, and the measured
table that turns each one's own.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Efforts:
    """Which setting of a knob costs which share, as measured on photos by `tierscale models
    calibrate`.

    knob: what is turned, such as "k" (PCSR), "threshold" (APE), "depth" (AdaDSR), "width" (AnySR),
    "bias" (ClassSR). settings: of the knob, from the least computation to the most. shares: of the
    full computation that each setting executes, rising, above 0; the last is 1. weights: SHA-256,
    hex, of the checkpoint that was measured. measured: how: folder, images, command.
    """

    knob: str
    settings: tuple[float, ...]
    shares: tuple[float, ...]
    weights: str
    measured: Mapping[str, Any]

    def __post_init__(self) -> None:
        rising = all(low < high for low, high in zip(self.shares, self.shares[1:], strict=False))
        if (
            len(self.settings) != len(self.shares)
            or len(self.shares) < 2
            or not rising
            or self.shares[0] <= 0
        ):
            raise ValueError(
                "a table of efforts needs two or more rising shares, one a setting, not"
                f" {self.shares}; calibrate again"
            )

    @property
    def floor(self) -> float:
        """The least share that the method can run at."""
        return self.shares[0]

    def setting(self, effort: float) -> float:
        """Where to turn the knob for a share of `effort`, 0..1, between the measured settings; the
        floor's below the floor.
        """
        check_effort(effort)
        return float(np.interp(effort, self.shares, self.settings))

    def share(self, effort: float) -> float:
        """The share that is executed when `effort` is asked for."""
        check_effort(effort)
        return max(effort, self.floor)


def check_effort(effort: float) -> None:
    """ValueError unless effort is a share."""
    if not 0 <= effort <= 1:
        raise ValueError(
            f"an effort of {effort:g} is not a share from 0 to 1 of the full computation"
        )


def table_path(checkpoint: Path) -> Path:
    """Where the table of a checkpoint lies: beside it."""
    return checkpoint.with_suffix(".efforts.json")


def write_efforts(checkpoint: Path, efforts: Efforts) -> None:
    """Store the table of a checkpoint."""
    table_path(checkpoint).write_text(json.dumps(asdict(efforts), indent=2) + "\n")


def read_efforts(checkpoint: Path, digest: str) -> Efforts | None:
    """The table of a checkpoint with this SHA-256; None where none was measured. ValueError:
    damaged, or of other weights.
    """
    path = table_path(checkpoint)
    if not path.is_file():
        return None
    try:
        fields = json.loads(path.read_text())
        efforts = Efforts(
            **{**fields, "settings": tuple(fields["settings"]), "shares": tuple(fields["shares"])}
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is no table of efforts ({error}); write it with tierscale models calibrate"
        ) from error
    if efforts.weights != digest:
        raise ValueError(
            f"{path} was measured with other weights ({efforts.weights[:12]}) than"
            f" {checkpoint.name} ({digest[:12]}); calibrate again"
        )
    return efforts
