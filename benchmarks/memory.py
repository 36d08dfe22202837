"""Memory does not grow with the image: `make bench-memory`.

Synthetic tiled images of 16, 64 and 256 output megapixels go through the whole job, light and
full. Measured is the peak over time of the unique memory (USS) of all processes, Ray's included,
plus the shared memory that the object store touched, as a multiple of what a 64-pixel image takes.
Flat means that the largest multiple is at most 1.15 times the smallest. What is taken beyond the
64-pixel image stands beside it in MiB: there small images are ahead, because their few windows lie
at the border, and two workers seldom peak in the same instant.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
import tifffile

from benchmarks.results import record

SIDES = (1024, 2048, 4096)
TIERS = "bicubic,fsrcnn-x4,carn-x4"


def synthetic(path: Path, side: int) -> None:
    """A tiled RGB TIFF of waves and noise, written tile by tile."""
    rng = np.random.default_rng(side)
    tile = min(side, 256)

    def tiles():
        for y in range(0, side, tile):
            for x in range(0, side, tile):
                rows, columns = np.mgrid[y : y + tile, x : x + tile]
                wave = 120 + 60 * np.sin(rows / 17) + 50 * np.cos(columns / 23)
                yield np.clip(wave[..., None] + rng.normal(0, 8, (tile, tile, 3)), 0, 255).astype(
                    np.uint8
                )

    tifffile.imwrite(
        path,
        tiles(),
        shape=(side, side, 3),
        dtype=np.uint8,
        tile=(tile, tile),
        photometric="rgb",
        compression="zlib",
    )


def peak(command: list[str]) -> tuple[float, float, float]:
    """Memory of a command and its descendants, in MiB, and the seconds it took.

    The highest sum over time, and the sum of each process's highest.
    """
    began = time.monotonic()
    highest: dict[int, int] = {}
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        together, parent = 0, psutil.Process(process.pid)
        while process.poll() is None:
            now = in_use(parent)
            together = max(together, sum(now.values()))
            highest.update({key: max(value, highest.get(key, 0)) for key, value in now.items()})
            time.sleep(0.05)
        error = process.stderr.read() if process.stderr else ""
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}: {error}")
    return together / 2**20, sum(highest.values()) / 2**20, time.monotonic() - began


def in_use(parent: psutil.Process) -> dict[int, int]:
    """Unique bytes of a process and its descendants, by process id.

    Under 0: the touched pages of Ray's object store.
    """
    used = {0: 0}
    try:
        everyone = [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return used
    for process in everyone:
        try:
            used[process.pid] = process.memory_full_info().uss
            if process.name() == "raylet":
                used[0] = max(used[0], process.memory_info().shared)
        except psutil.Error:
            continue
    return used


def compare(sizes: dict[int, float]) -> dict[str, float]:
    """Peaks of images of SIDES, compared with that of a 64-pixel image.

    sizes: MiB by side. Multiples of the small image, how flat they are, and the MiB beyond it.
    """
    times = {side: sizes[side] / sizes[64] for side in SIDES}
    return {
        "64 pixels, MiB": round(sizes[64], 1),
        **{
            f"{(4 * side) ** 2 / 1e6:.0f} MP, times 64 pixels": round(times[side], 3)
            for side in SIDES
        },
        "largest over smallest": round(max(times.values()) / min(times.values()), 3),
        **{
            f"{(4 * side) ** 2 / 1e6:.0f} MP, MiB beyond 64 pixels": round(
                sizes[side] - sizes[64], 1
            )
            for side in SIDES
        },
    }


def main(policies: Sequence[str]) -> None:
    """Measure all sizes and record the figures."""
    with tempfile.TemporaryDirectory(prefix="tierscale-bench-") as folder:
        for side in (64, *SIDES):
            synthetic(Path(folder) / f"{side}.tif", side)
        for policy in policies:
            together, apart = {}, {}
            for side in (64, *SIDES):
                command = [
                    sys.executable,
                    "-m",
                    "tierscale",
                    "upscale",
                    f"{folder}/{side}.tif",
                    f"{folder}/{policy}{side}.zarr",
                ]
                together[side], apart[side], seconds = peak(
                    [*command, "--tiers", TIERS, "--policy", policy]
                )
                sizes = f"{together[side]:.0f} MiB together, {apart[side]:.0f} of each one's peak"
                print(
                    f"{policy} {side}x{side}: {sizes}, {seconds:.0f} s", file=sys.stderr, flush=True
                )
            figures = {"peak of the sum": compare(together), "sum of the peaks": compare(apart)}
            record(f"memory, {policy}", "make bench-memory", figures)


if __name__ == "__main__":
    main(sys.argv[1:] or ("light", "full"))
