"""What each setting of an adaptive method's control costs, measured on photos.

The table that turns effort into a setting, which lies beside the weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tierscale.models import registry
from tierscale.models.adaptive.anysr.upscaler import AnySrUpscaler
from tierscale.models.contract.checkpoints import digest_file
from tierscale.models.contract.efforts import Efforts, read_efforts, table_path, write_efforts
from tierscale.models.contract.upscaler import Adjustable, Placement
from tierscale.models.runtime import patches
from tierscale.models.train.data.photos import image_files, read_image
from tierscale.models.train.data.shrink import shrink

# Shares nearer to each other, or to the full computation, are one; between those that lie farther
# apart than GAP, settings half way are measured too, at most so many.
STEP, GAP, HALVINGS = 0.002, 0.05, 24
# Side of a crop, input pixels: four steps of runtime.patches, whose tiles then overlap as much as
# in a large window.
SIDE = 4 * patches.STEP


@dataclass(frozen=True, slots=True)
class Sampling:
    """Which crops of which photos are measured.

    folder: of photos. side: of a crop, input pixels. count: crops. seed: of their places.
    """

    folder: Path
    side: int = SIDE
    count: int = 48
    seed: int = 0


def crops(sampling: Sampling, scale: Fraction) -> list[Tensor]:
    """Windows (1, 3, side, side), 0..1, shrunk from places of photos that the seed tells.

    Each photo takes its turn before any comes again. ValueError: the folder holds no photo that is
    large enough.
    """
    rng, length = np.random.default_rng(sampling.seed), int(sampling.side * scale)
    files = image_files(sampling.folder)
    turns = (int(i) for _ in range(sampling.count) for i in rng.permutation(len(files)))
    order = list(turns) if files else []
    windows: list[Tensor] = []
    for index in order:
        hr = read_image(files[index])
        room = [size - length for size in hr.shape[1:]]
        if min(room) >= 0:
            y, x = (int(rng.integers(0, most + 1)) for most in room)
            crop = hr[:, y : y + length, x : x + length] / 255
            windows.append(shrink(crop, scale).clamp(0, 1)[None])
        if len(windows) == sampling.count:
            return windows
    raise ValueError(
        f"{sampling.folder} holds too few photos of {length} pixels or more a side; name another"
        " folder, or a smaller --side"
    )


class Measuring:
    """An upscaler on windows, and what it executes of its full computation there."""

    def __init__(self, upscaler: Adjustable, windows: Sequence[Tensor], scale: Fraction) -> None:
        self.upscaler, self.windows = upscaler, windows
        self.places = [
            Placement.whole((window.shape[2], window.shape[3]), scale) for window in windows
        ]
        self.full = [
            upscaler(window, place).macs.item()
            for window, place in zip(windows, self.places, strict=True)
        ]

    def share(self, setting: float) -> float:
        """Share of the full computation that a setting of the control executes on hard photos.

        It is the mean over the harder half of the windows, but at most the upscaler's safety margin
        above that over all.
        """
        control = self.upscaler.control or ""
        shares = [
            self.upscaler(window, place, settings={control: setting}).macs.item() / most
            for window, place, most in zip(self.windows, self.places, self.full, strict=True)
        ]
        harder = np.sort(shares)[len(shares) // 2 :]
        return float(min(np.mean(harder), np.mean(shares) + self.upscaler.safety_margin))


def measure(
    upscaler: Adjustable, windows: Sequence[Tensor], scale: Fraction
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Settings of the control, from the least computation to the most, and their rising shares.

    The last share is 1. Where the control's end costs more than the full network (PCSR's classifier
    is not asked at full effort), the last setting but one serves up to full effort. Of settings
    with one share the last is listed, from which on the share rises.
    """
    grid = upscaler.calibration_grid
    with torch.inference_mode():
        measuring = Measuring(upscaler, windows, scale)
        measured = measure_grid(measuring, grid)
        setting, last = measured[-1]
        beyond = (last if setting == grid[-1] else measuring.share(grid[-1])) > 1
    settings: list[float] = []
    shares: list[float] = []
    for setting, executed in measured:
        if executed >= 1 - STEP:
            continue
        if shares and executed <= shares[-1] + STEP:
            settings[-1] = setting
        else:
            settings.append(setting)
            shares.append(executed)
    if not shares:
        raise ValueError(
            f"no setting of {upscaler.control} from {grid[0]:g} to {grid[-1]:g} saves anything;"
            " train the choice first"
        )
    return (*settings, settings[-1] if beyond else grid[-1]), (*shares, 1.0)


def measure_grid(measuring: Measuring, grid: Sequence[float]) -> list[tuple[float, float]]:
    """Settings and their shares: those of the grid up to a full share, and some between.

    Where shares lie far apart, settings half way are measured too.
    """
    measured: list[tuple[float, float]] = []
    for setting in grid:
        measured.append((setting, measuring.share(setting)))
        if measured[-1][1] >= 1 - STEP:
            break
    for _ in range(HALVINGS):
        gaps = [high - low for (_, low), (_, high) in pairwise(measured)]
        if not gaps or max(gaps) <= GAP:
            break
        widest = gaps.index(max(gaps))
        middle = (measured[widest][0] + measured[widest + 1][0]) / 2
        measured.insert(widest + 1, (middle, measuring.share(middle)))
    return measured


def calibrate(name: str, sampling: Sampling, scale: Fraction | None = None) -> Efforts:
    """Measure the table of a zoo name or file:PATH and store it beside the weights.

    scale: the one it was made for, or 4 where it is made for any. ValueError: there is no control
    to turn, or too few photos.
    """
    path = registry.locate(name)
    digest = digest_file(path)
    try:
        read_efforts(path, digest)
    except ValueError:  # of other weights, or damaged: it would keep the upscaler from being loaded
        table_path(path).unlink()
    upscaler = registry.load(name)
    if isinstance(upscaler, AnySrUpscaler):
        # Its cost follows from the control alone: the shapes tell it.
        efforts = replace(upscaler.counted, weights=digest)
    elif isinstance(upscaler, Adjustable) and upscaler.control is not None:
        scale = scale or (min(upscaler.scales) if upscaler.scales else Fraction(4))
        settings, shares = measure(upscaler, crops(sampling, scale), scale)
        how = {"photos": sampling.folder.name, "scale": str(scale), "side": sampling.side}
        how |= {"count": sampling.count, "seed": sampling.seed}
        rounded = tuple(round(share, 4) for share in shares)
        efforts = Efforts(upscaler.control, settings, rounded, digest, how)
    else:
        raise ValueError(
            f"{name} has no control, it runs at full effort only; calibrate an adaptive method"
        )
    write_efforts(path, efforts)
    return efforts
