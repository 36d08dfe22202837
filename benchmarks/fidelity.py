"""What it costs to compare shards with their source: `make bench-fidelity`.

A 4-megapixel photograph on one worker: seconds in which shards are shrunk and compared, over those
of the whole run, each from one and the same run.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import tifffile

from benchmarks.durability import KINDS, REPEATS
from benchmarks.overhead import photograph
from benchmarks.results import record
from tierscale.pipeline.output.receipts import Folder
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.run.job import ImageJob
from tierscale.pipeline.run.run import upscale_image
from tierscale.pipeline.run.workers.pool import LocalPool


def cost(source: Path, output: str, options: Options) -> float:
    """Share of a run's seconds in which shards are compared."""
    began = time.perf_counter()
    with LocalPool(1) as pool:
        summary = upscale_image(ImageJob(str(source), output, options), pool)
    seconds = time.perf_counter() - began
    receipts = Folder(output).receipts(summary.plan or "")
    return sum(receipt.seconds.get("check", 0.0) for receipt in receipts) / seconds


def main() -> None:
    """Measure each kind of run some times, and record the medians."""
    figures: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="tierscale-bench-", dir=Path.cwd()) as folder:
        source = Path(folder) / "photo.tif"
        tifffile.imwrite(
            source, photograph(), tile=(256, 256), photometric="rgb", compression="zlib"
        )
        for kind, options in KINDS.items():
            shares = []
            for attempt in range(REPEATS):
                shares.append(cost(source, f"{folder}/{kind}-{attempt}.zarr", options))
                print(f"{kind}: {shares[-1]:.2%} of the run", flush=True)
            figures[kind] = {
                "median": round(float(np.median(shares)), 4),
                "largest": round(max(shares), 4),
            }
    record("fidelity", "make bench-fidelity", figures)


if __name__ == "__main__":
    main()
