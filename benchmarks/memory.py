"""Memory does not grow with the image: `make bench-memory`.

Synthetic tiled images of 16, 64 and 256 output megapixels go through the whole job, cheapest and dearest. Measured is the peak over time of
the unique memory (USS) of all processes, Ray's included, plus the shared memory that the object store touched, over that of a
64-pixel image. Flat means that the largest is at most 1.15 times the smallest.
"""

import subprocess
import sys
import tempfile
import time
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
                yield np.clip(wave[..., None] + rng.normal(0, 8, (tile, tile, 3)), 0, 255).astype(np.uint8)

    tifffile.imwrite(path, tiles(), shape=(side, side, 3), dtype=np.uint8, tile=(tile, tile), photometric="rgb", compression="zlib")


def peak(command: list[str]) -> tuple[float, float]:
    """Highest sum of memory of a command and all its descendants, in MiB, and the seconds it took."""
    began = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        highest, parent = 0.0, psutil.Process(process.pid)
        while process.poll() is None:
            highest = max(highest, in_use(parent))
            time.sleep(0.2)
        error = process.stderr.read() if process.stderr else ""
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}: {error}")
    return highest, time.monotonic() - began


def in_use(parent: psutil.Process) -> float:
    """Unique memory of a process and its descendants, and the touched pages of Ray's object store, in MiB."""
    total = store = 0
    try:
        everyone = [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0
    for process in everyone:
        try:
            total += process.memory_full_info().uss
            store = max(store, process.memory_info().shared if process.name() == "raylet" else 0)
        except psutil.Error:
            continue
    return (total + store) / 2**20


def main() -> None:
    """Measure all sizes and record the figures."""
    figures: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="tierscale-bench-") as folder:
        for side in (64, *SIDES):
            synthetic(Path(folder) / f"{side}.tif", side)
        for policy in ("cheapest", "dearest"):
            sizes = {}
            for side in (64, *SIDES):
                command = [sys.executable, "-m", "jobs.cli", "upscale", f"{folder}/{side}.tif", f"{folder}/{policy}{side}.zarr"]
                sizes[side], seconds = peak([*command, "--tiers", TIERS, "--policy", policy])
                print(f"{policy} {side}x{side}: {sizes[side]:.0f} MiB, {seconds:.0f} s", file=sys.stderr, flush=True)
            over = {f"{(4 * side) ** 2 / 1e6:.0f} MP": round(sizes[side] - sizes[64], 1) for side in SIDES}
            figures[policy] = {"64 pixels, MiB": round(sizes[64], 1), **{f"{name}, MiB over": value for name, value in over.items()}}
            figures[policy]["largest over smallest"] = round(max(over.values()) / min(over.values()), 3)
            figures[policy]["largest total over smallest total"] = round(max(sizes[s] for s in SIDES) / min(sizes[s] for s in SIDES), 3)
    record("memory", "make bench-memory", figures)


if __name__ == "__main__":
    main()
