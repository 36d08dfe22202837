"""How far one driver reaches, without the machines: `make bench-scale`.

workers: a Ray pool of up to 200 simulated workers (seats of async actors in at most 16 processes)
whose calls sleep for as long as real shards took here. driver: a plan of 1,000,000 tiles carried
out by workers that do nothing. manifest: 1,000,000 rows read and checked. Each is measured in a
process of its own; seconds of the clock stand beside seconds of the processor, which others may
have shared.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import skimage.data
import zarr

from benchmarks.results import record
from benchmarks.simulated import Nobody, workers
from tierscale.pipeline.dataset.manifest import Manifest
from tierscale.pipeline.output.receipts import Folder
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.plan.policies import Adaptive, Full
from tierscale.pipeline.run import resources
from tierscale.pipeline.run.job import ImageJob
from tierscale.pipeline.run.run import upscale_image
from tierscale.pipeline.run.workers.pool import LocalPool

TIERS = ("bicubic", "fsrcnn-x4", "carn-x4")
WIDTHS = (8, 32, 128, 200)
ROWS = 1_000_000
SIDE, TILE = 1000, 128


def measured(folder: Path) -> list[float]:
    """Seconds that real shards take on one core here, from reading to writing by a warm worker."""
    stars = np.tile(skimage.data.hubble_deep_field()[:512, :512], (2, 2, 1))
    source = str(folder / "stars.zarr")
    zarr.create_array(source, data=stars.transpose(2, 0, 1), chunks=(3, 256, 256))
    options = Options(tiers=TIERS[:2], policy=Full())
    with LocalPool(1) as pool:
        for name in ("cold", "warm"):
            upscale_image(ImageJob(source, str(folder / f"{name}.zarr"), options), pool)
    warm = Folder(str(folder / "warm.zarr"))
    receipts = warm.receipts(warm.plan().digest, 0)
    return [sum(receipt.seconds.values()) for receipt in receipts]


def driver(side: int) -> dict[str, float]:
    """Memory and time of the driver for side x side tiles, from the source to the report."""
    # Nothing is written but receipts.
    resources.check_disk = lambda draft, output: None
    with tempfile.TemporaryDirectory(prefix="tierscale-bench-") as folder:
        source = f"{folder}/empty.zarr"
        zarr.create_array(source, shape=(side * TILE, side * TILE), chunks=(1024, 1024), dtype="u1")
        before = memory()
        began, cpu = time.perf_counter(), time.process_time()
        options = Options(tiers=TIERS, policy=Adaptive(), tile=TILE)
        found = upscale_image(ImageJob(source, f"{folder}/out.zarr", options), Nobody())
        return {
            "tiles": side * side,
            "shards": found.shards,
            "driver, MiB": memory(),
            "of these before, MiB": before,
            "seconds": round(time.perf_counter() - began, 1),
            "processor seconds": round(time.process_time() - cpu, 1),
        }


def manifest(kind: str) -> dict[str, float]:
    """Time and memory of reading a manifest of ROWS rows, which another process wrote."""
    before, began, cpu = memory(), time.perf_counter(), time.process_time()
    found = Manifest.read(kind)
    assert len(found) == ROWS and not found.bad
    return {
        "rows": ROWS,
        "seconds": round(time.perf_counter() - began, 1),
        "processor seconds": round(time.process_time() - cpu, 1),
        "MiB": memory(),
        "of these before, MiB": before,
    }


def write_manifest(path: Path) -> None:
    """ROWS rows with all kinds of columns."""
    numbers = range(ROWS)
    table = pa.table(
        {
            "source": [f"/srv/archive/{n // 1000:04d}/scan_{n:07d}.tif" for n in numbers],
            "output": [f"{n // 1000:04d}/scan_{n:07d}.zarr" for n in numbers],
            "scale": ["4" if n % 2 else "5/2" for n in numbers],
            "budget": [0.1 + n % 9 / 10 if n % 3 else None for n in numbers],
            "priority": [float(n % 5) for n in numbers],
        }
    )
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    elif path.suffix == ".csv":
        pa.csv.write_csv(table, path)
    else:
        with open(path, "w") as file:
            for batch in table.to_batches(10_000):
                file.writelines(
                    json.dumps({k: v for k, v in row.items() if v is not None}) + "\n"
                    for row in batch.to_pylist()
                )


def memory() -> int:
    """Highest memory of this process so far, MiB."""
    # Not getrusage: it goes on from what the process that started this one once took.
    found = next(
        line
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmHWM")
    )
    return int(found.split()[1]) >> 10


def apart(what: str, *arguments: Any) -> dict[str, float]:
    """Measure one thing in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.scale", what, json.dumps(arguments)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(what, *(str(one)[:40] for one in arguments), found, flush=True)
    return found


def main() -> None:
    """Measure everything and record it."""
    cores = psutil.cpu_count(logical=False)
    with tempfile.TemporaryDirectory(prefix="tierscale-bench-") as folder:
        seconds = [round(one, 3) for one in measured(Path(folder))]
        figures: dict[str, Any] = {"measured shards, seconds": seconds}
        figures["shards per second of the driver alone"] = apart("workers", 200, [0.0])
        for width in WIDTHS:
            figures[f"{width} workers"] = apart("workers", width, seconds)
        for side in (SIDE // 4, SIDE):
            figures[f"plan of {side * side} tiles"] = apart("driver", side)
        for suffix in ("parquet", "csv", "jsonl"):
            write_manifest(path := Path(folder) / f"m.{suffix}")
            figures[f"manifest, {suffix}"] = apart("manifest", str(path))
    most = figures["shards per second of the driver alone"]["shards per second"]
    figures["where the cores end"] = (
        f"one driver hands out {most:.0f} shards a second on these {cores} cores, which the"
        f" simulated workers' processes and Ray's share; a shard takes {np.mean(seconds):.1f} s"
        f" here, so that {most * np.mean(seconds):.0f} workers of this speed would keep it busy"
    )
    record("scale", "make bench-scale", figures)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(
            json.dumps(
                {"workers": workers, "driver": driver, "manifest": manifest}[sys.argv[1]](
                    *json.loads(sys.argv[2])
                )
            )
        )  # type: ignore[operator]
    else:
        main()
