"""Effort, one control for all adaptive methods, and the measured table that turns it into theirs.

Effort is the share of the full computation, 0 to 1.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tierscale.models.contract.checkpoints import write_whole

# How far the harder half of the photos may raise a share. Executed cost is to lie between 0.10
# below and 0.05 above what is asked on other photos too, and sets of photos differ: PCSR-CARN at k
# = 0 executes 0.67 on data/train and 0.72 to 0.74 on Set14 and Urban100.
SAFETY_MARGIN = 0.075


@dataclass(frozen=True, slots=True)
class Efforts:
    """Which setting of a control costs which share, as `tierscale models calibrate` measured it.

    control: what is turned, such as "k" (PCSR), "threshold" (APE), "depth" (AdaDSR), "width"
    (AnySR), "bias" (ClassSR).
    settings: of the control, from the least computation to the most.
    shares: of the full computation that each setting executes, rising, above 0; the last is 1.
    weights: SHA-256, hex, of the checkpoint that was measured.
    measured: how: folder, images, command.
    """

    control: str
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
        """The control's setting for an effort, 0..1, on a line between the measured settings.

        Below the floor it is the floor's. ValueError: no share.
        """
        check_effort(effort)
        return float(np.interp(effort, self.shares, self.settings))

    def share(self, setting: float) -> float:
        """The share that a setting of a rising control executes: the inverse of setting()."""
        return float(np.interp(setting, self.settings, self.shares))

    def cost_fraction(self, effort: float) -> float:
        """The share of the full computation that is executed at an effort, 0..1."""
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
    # Files call the control a knob, as those of version 0.1 do.
    fields = {"knob" if name == "control" else name: v for name, v in asdict(efforts).items()}
    write_whole(table_path(checkpoint), (json.dumps(fields, indent=2) + "\n").encode())


def read_efforts(checkpoint: Path, digest: str) -> Efforts | None:
    """The table of a checkpoint with the SHA-256 `digest`; None where none was measured.

    ValueError: the table is damaged, or was measured with other weights.
    """
    path = table_path(checkpoint)
    if not path.is_file():
        return None
    try:
        fields = json.loads(path.read_text())
        settings, shares = tuple(fields.pop("settings")), tuple(fields.pop("shares"))
        efforts = Efforts(control=fields.pop("knob"), settings=settings, shares=shares, **fields)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is not a table of efforts ({error}); write it with tierscale models calibrate"
        ) from error
    if efforts.weights != digest:
        raise ValueError(
            f"{path} was measured with other weights ({efforts.weights[:12]}) than"
            f" {checkpoint.name} ({digest[:12]}); calibrate again"
        )
    return efforts


def measured_setting(efforts: Efforts | None, effort: float, origin: str) -> float:
    """The control's setting for an effort below 1; ValueError, naming `origin`: not measured."""
    check_effort(effort)
    if efforts is None:
        raise ValueError(
            f"what {origin} costs at an effort of {effort:g} was not measured; run"
            " tierscale models calibrate NAME"
        )
    return efforts.setting(effort)


def check_settings(method: str, settings: Mapping[str, float], known: Collection[str]) -> None:
    """ValueError naming the settings that a method does not know."""
    unknown = sorted(settings.keys() - set(known))
    if unknown:
        raise ValueError(
            f"{method} is given {', '.join(unknown)}, but knows only {', '.join(known)}"
        )
