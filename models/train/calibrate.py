"""What each setting of an adaptive method's control costs, measured on photos: the table that turns
effort into a setting.
"""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tierscale.models import registry
from tierscale.models.contract.checkpoints import digest_file
from tierscale.models.contract.efforts import Efforts, read_efforts, table_path, write_efforts
from tierscale.models.contract.upscaler import Placement, Upscaler
from tierscale.models.runtime import patches as cut
from tierscale.models.train.photos import image_files, read_image
from tierscale.models.train.shrink import shrink

# Shares nearer to each other, or to the full computation, are one; between those that lie farther
# apart than GAP, settings half way are measured too, at most so many.
STEP, GAP, HALVINGS = 0.002, 0.05, 24
# How far the harder half of the photos may raise a share. Executed cost is to lie between 0.10
# below and 0.05 above what is asked on other photos too, and sets of photos differ: PCSR-CARN at k
# = 0 executes 0.67 on data/train and 0.72 to 0.74 on Set14 and Urban100.
SAFETY_MARGIN = 0.075
# Side of a crop, input pixels: four steps of runtime.patches, whose tiles then overlap as much as
# in a large window.
SIDE = 4 * cut.STEP


def crops(folder: Path, scale: Fraction, side: int, count: int, seed: int) -> list[Tensor]:
    """Windows (1, 3, side, side), 0..1, shrunk from places of photos that `seed` tells, each
    photo's turn before any comes again.

    ValueError: the folder holds no photo that is large enough.
    """
    rng, length = np.random.default_rng(seed), int(side * scale)
    files = image_files(folder)
    found: list[Tensor] = []
    for index in (
        [int(i) for _ in range(count) for i in rng.permutation(len(files))] if files else []
    ):
        hr = read_image(files[index])
        room = [size - length for size in hr.shape[1:]]
        if min(room) >= 0:
            y, x = (int(rng.integers(0, most + 1)) for most in room)
            found.append(
                shrink(hr[:, y : y + length, x : x + length] / 255, scale).clamp(0, 1)[None]
            )
        if len(found) == count:
            return found
    raise ValueError(
        f"{folder} holds too few photos of {length} pixels or more a side; name another folder, or"
        " a smaller --side"
    )


def share(
    upscaler: Upscaler,
    windows: Sequence[Tensor],
    full: Sequence[float],
    scale: Fraction,
    setting: float,
) -> float:
    """Share of the full computation (multiply-adds of each window) that a setting of the control
    executes on hard photos.

    It is the mean over the harder half of the windows, but at most SAFETY_MARGIN, or what the
    method says, above that over all.
    """
    assert upscaler.control is not None
    found = []
    for window, most in zip(windows, full, strict=True):
        place = Placement.whole((window.shape[2], window.shape[3]), scale)
        found.append(
            upscaler(window, place, settings={upscaler.control: setting}).macs.item() / most
        )
    harder = np.sort(found)[len(found) // 2 :]
    return float(
        min(np.mean(harder), np.mean(found) + getattr(upscaler, "safety_margin", SAFETY_MARGIN))
    )


def measure(
    upscaler: Upscaler, windows: Sequence[Tensor], scale: Fraction
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Settings of the control, from the least computation to the most, and their rising shares, the
    last of which is 1.

    Where the control's end costs more than the full network (PCSR's classifier is not asked at full
    effort), the last setting but one serves up to full effort. Of settings with one share the last
    is told, from which on the share rises.
    """
    calibration_grid: Sequence[float] = upscaler.calibration_grid  # type: ignore[attr-defined]
    found: list[tuple[float, float]] = []
    with torch.inference_mode():
        full = [
            upscaler(window, Placement.whole((window.shape[2], window.shape[3]), scale)).macs.item()
            for window in windows
        ]
        for setting in calibration_grid:
            found.append((setting, share(upscaler, windows, full, scale, setting)))
            if found[-1][1] >= 1 - STEP:
                break
        for _ in range(HALVINGS):
            gaps = [high - low for (_, low), (_, high) in pairwise(found)]
            if not gaps or max(gaps) <= GAP:
                break
            widest = gaps.index(max(gaps))
            middle = (found[widest][0] + found[widest + 1][0]) / 2
            found.insert(widest + 1, (middle, share(upscaler, windows, full, scale, middle)))
        setting, last = found[-1]
        beyond = (
            last
            if setting == calibration_grid[-1]
            else share(upscaler, windows, full, scale, calibration_grid[-1])
        ) > 1
    settings: list[float] = []
    shares: list[float] = []
    for setting, executed in found:
        if executed >= 1 - STEP:
            continue
        if shares and executed <= shares[-1] + STEP:
            settings[-1] = setting
        else:
            settings.append(setting)
            shares.append(executed)
    if not shares:
        raise ValueError(
            f"no setting of {upscaler.control} from {calibration_grid[0]:g} to {calibration_grid[-1]:g} saves anything;"
            " train the choice first"
        )
    return (*settings, settings[-1] if beyond else calibration_grid[-1]), (*shares, 1.0)


def calibrate(
    name: str,
    folder: Path,
    scale: Fraction | None = None,
    side: int = SIDE,
    count: int = 48,
    seed: int = 0,
) -> Efforts:
    """Measure the table of a zoo name or file:PATH and store it beside the weights. ValueError:
    there is no control to turn.

    scale: the one it was made for, or 4 where it is made for any.
    """
    path = registry.locate(name)
    digest = digest_file(path)
    try:
        read_efforts(path, digest)
    except ValueError:  # of other weights, or damaged: it would keep the upscaler from being loaded
        table_path(path).unlink()
    upscaler = registry.load(name)
    if upscaler.control is None:
        raise ValueError(
            f"{name} has no control, it runs at full effort only; calibrate an adaptive method"
        )
    counted: Efforts | None = getattr(upscaler, "counted", None)
    if counted is not None:  # its cost hangs on the control alone: the shapes tell it
        efforts = replace(counted, weights=digest)
        write_efforts(path, efforts)
        return efforts
    scale = scale or (min(upscaler.scales) if upscaler.scales else Fraction(4))
    settings, shares = measure(upscaler, crops(folder, scale, side, count, seed), scale)
    told = {"photos": folder.name, "scale": str(scale), "side": side, "count": count, "seed": seed}
    efforts = Efforts(
        upscaler.control, settings, tuple(round(found, 4) for found in shares), digest, told
    )
    write_efforts(path, efforts)
    return efforts
