"""How far one driver reaches, without the machines: `make bench-scale`.

workers: a Ray pool of up to 200 simulated workers (seats of async actors in at most 16 processes)
whose calls sleep for as long as real shards took here. driver: a plan of 1,000,000 tiles carried
out by workers that do nothing. manifest: 1,000,000 rows read and checked. Each is measured in a
process of its own; seconds of the clock stand beside seconds of the processor, which others may
have shared.
"""

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import skimage.data
import zarr
from tierscale.pipeline.run.tasks import Flight

from benchmarks.results import record
from tierscale.pipeline.dataset.manifest import Manifest
from tierscale.pipeline.output.receipts import Folder, Receipt
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.plan.plan import Plan
from tierscale.pipeline.run.job import ImageJob as ImageJob
from tierscale.pipeline.run.run import Run
from tierscale.pipeline.run.workers.pool import LocalPool

TIERS = ("bicubic", "fsrcnn-x4", "carn-x4")
WIDTHS = (8, 32, 128, 200)
PROCESSES = 16
# Shards that every simulated worker makes: the last one of each ends when it will, which leaves
# workers idle for half a shard on average.
EACH = 40
ROWS = 1_000_000
SIDE, TILE = 1000, 128


class Seats:
    """An async actor that stands for many workers; each does one call at a time, and every call
    sleeps.
    """

    def __init__(self, seconds: list[float]) -> None:
        self.seconds = seconds
        self.locks: dict[int, asyncio.Lock] = {}

    async def ready(self, seat: int) -> bool:
        """True once it is up."""
        return True

    async def finish(self, seat: int, number: int) -> Receipt:
        """A shard that was made by nobody."""
        async with self.locks.setdefault(seat, asyncio.Lock()):
            slept = self.seconds[number % len(self.seconds)]
            await asyncio.sleep(slept)
            return empty(("", 0, number, 0), {"enlarge": slept})


class Seat:
    """One seat of an actor, which the pool takes for an actor of its own."""

    def __init__(self, actor: Any, number: int) -> None:
        self.actor, self.number = actor, number

    def __getattr__(self, method: str) -> Any:
        seat = self

        class Bound:
            @staticmethod
            def remote(*args: Any) -> Any:
                return getattr(seat.actor, method).remote(seat.number, *args)

        return Bound


def empty(
    key: tuple[str, int, int, int],
    seconds: dict[str, float],
    rows: range = range(4),
    columns: range = range(4),
) -> Receipt:
    """A receipt as a real shard has it. key: plan, level, y, x. rows, columns: its tiles."""
    costs = tuple((row, column, 1.5e9 + row, 12.5 + column) for row in rows for column in columns)
    return Receipt(
        *key,
        (1, 2048, 2048),
        "0" * 64,
        2048 * 2048,
        {"bicubic": 12, "carn-x4": 4},
        2.4e10,
        seconds,
        "cpu",
        1,
        (),
        costs,
    )


def measured(folder: Path) -> list[float]:
    """Seconds that real shards take on one core here, from reading to writing, once a worker is
    warm.
    """
    stars = np.tile(skimage.data.hubble_deep_field()[:512, :512], (2, 2, 1))
    source = str(folder / "stars.zarr")
    zarr.create_array(source, data=stars.transpose(2, 0, 1), chunks=(3, 256, 256))
    with LocalPool(1) as pool:
        for name in ("cold", "warm"):
            run = Run(
                ImageJob(
                    source, str(folder / f"{name}.zarr"), Options(tiers=TIERS[:2], policy="dearest")
                ),
                pool,
            )
            run.carry_out()
    assert run.plan is not None
    return [
        sum(r.seconds.values())
        for r in Folder(run.request.output).receipts(run.plan.digest)
        if r.level == 0
    ]


def workers(width: int, seconds: list[float]) -> dict[str, float]:
    """Shards per second and efficiency of `width` simulated workers."""
    import ray

    from tierscale.cluster import actor_group as crew
    from tierscale.cluster import pool as pools
    from tierscale.cluster.session import loopback

    with loopback():
        ray.init(
            "local",
            num_cpus=1,
            object_store_memory=80 << 20,
            include_dashboard=False,
            log_to_driver=False,
        )
    per = -(-width // min(PROCESSES, width))
    remote = ray.remote(num_cpus=0, max_concurrency=4 * per)(Seats)
    actors = [remote.remote(seconds) for _ in range(-(-width // per))]
    places = iter([Seat(actors[number // per], number) for number in range(width)])

    class Simulated(crew.Crew):
        def hire(self, count: int) -> None:
            self.coming.update({(seat := next(places)).ready.remote(): seat for _ in range(count)})

        def kill(self) -> None:
            pass

    pools.Crew = Simulated  # type: ignore[misc]
    pool = pools.RayPool(pools.PoolSpec(width))
    flight = Flight(pool, lambda key: [("light", "finish", key[1])], "nothing")
    driver, shards = psutil.Process(), EACH * width if any(seconds) else 4000
    busy, cores, began, at = driver.cpu_times(), psutil.cpu_times(), time.perf_counter(), 0
    landed = 0
    while landed < shards:
        while len(flight) < 2 * width and at < shards:
            flight.launch((0, at, 0))
            at += 1
        landed += sum(1 for _ in flight.landed())
    wall = time.perf_counter() - began
    used, all_cores = driver.cpu_times(), psutil.cpu_times()
    slept = sum(seconds[number % len(seconds)] for number in range(shards))
    pool.close()
    ray.shutdown()
    return {
        "shards per second": round(shards / wall, 1),
        "efficiency": round(slept / (width * wall), 3),
        "driver, share of a core": round(
            (used.user + used.system - busy.user - busy.system) / wall, 2
        ),
        "machine, share of its cores": round(
            1 - (all_cores.idle - cores.idle) / wall / (psutil.cpu_count() or 1), 2
        ),
    }


class Nobody:
    """A pool whose workers make nothing and write receipts."""

    split, device, width = False, "cpu", 8

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    def share(self, value: Any) -> Any:
        return value

    def close(self) -> None:
        pass

    def submit(self, method: str, *args: Any, kind: str = "light", keep: bool = False) -> Future:
        self.calls[method] += 1
        future: Future = Future()
        future.set_result(getattr(self, method)(*args))
        return future

    def score(self, plan: Plan, rows: Any) -> np.ndarray:
        chance = np.random.default_rng(rows.start)
        scores = chance.exponential(1e-3, (rows.length, plan.grid.tiles[1], len(plan.tiers)))
        return -np.sort(-scores, axis=2).astype(np.float32)

    def finish(self, plan: Plan, output: str, shard: tuple[int, int]) -> Receipt:
        rows, columns = (range(span.start, span.stop) for span in plan.grid.shard_block(shard))
        return self._written(
            output,
            empty(
                (plan.digest, 0, *shard), {"read": 0.1, "enlarge": 1.0, "write": 0.1}, rows, columns
            ),
        )

    def pyramid(self, plan: Plan, output: str, level: int, shard: tuple[int, int]) -> Receipt:
        return self._written(
            output, empty((plan.digest, level, *shard), {"pyramid": 0.1}, range(0))
        )

    def draw(self, plan: Plan, output: str) -> None:
        """Pictures are drawn from pixels, of which there are none."""

    def _written(self, output: str, receipt: Receipt) -> Receipt:
        Folder(output).write(receipt)
        return receipt


def driver(side: int) -> dict[str, float]:
    """Memory and time of the driver for a plan of side x side tiles, from the source to the
    report.
    """
    from tierscale.pipeline.run import resources as needs

    needs.check_disk = lambda plan, output: None  # type: ignore[assignment]  # nothing is written but receipts
    with tempfile.TemporaryDirectory(prefix="tierscale-bench-") as folder:
        source = f"{folder}/empty.zarr"
        zarr.create_array(source, shape=(side * TILE, side * TILE), chunks=(1024, 1024), dtype="u1")
        before = memory()
        began, cpu = time.perf_counter(), time.process_time()
        run = Run(ImageJob(source, f"{folder}/out.zarr", Options(tiers=TIERS, tile=TILE)), Nobody())  # type: ignore[arg-type]
        found = run.carry_out()
        return {
            "tiles": side * side,
            "shards": found["shards"]["total"],
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


def apart(what: str, *given: Any) -> dict[str, float]:
    """Measure one thing in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.scale", what, json.dumps(given)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(what, *(str(one)[:40] for one in given), found, flush=True)
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
