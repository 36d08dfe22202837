"""What it costs to compare shards with their source: `make bench-fidelity`.

A 4-megapixel photograph on one worker: seconds in which shards are shrunk and compared, over those
of the whole run, each from one and the same run.
"""

import time
from pathlib import Path

from benchmarks.durability import record_shares
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


if __name__ == "__main__":
    record_shares("fidelity", cost)
