"""A whole job by the clock: the full tier everywhere against `--max-loss 0.02`, on the earth map.

`python -m benchmarks.routed_job [TIERS]`, on a machine that does nothing else. Recorded with the
other figures.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.results import record
from benchmarks.scenes import SHARED

WAYS = {"full": ("--policy", "full"), "max-loss": ("--max-loss", "0.02")}


def job(tiers: str) -> dict[str, Any]:
    """Seconds of both ways, by stage, how many times faster the routed one is, and the share that
    looking at the image first takes.
    """
    source = SHARED / "data" / "large" / "earth_daymap_8192x4096.jpg"
    found: dict[str, Any] = {"tiers": tiers}
    for name, options in WAYS.items():
        with tempfile.TemporaryDirectory(prefix="tierscale-bench-") as folder:
            command = [
                sys.executable,
                "-m",
                "tierscale",
                "upscale",
                str(source),
                f"{folder}/out.zarr",
                "--tiers",
                tiers,
                *options,
                "--json",
            ]
            began = time.monotonic()
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            seconds = time.monotonic() - began
        summary = json.loads(done.stdout)
        found[name] = {
            "seconds": round(seconds, 1),
            "stages": summary["seconds"],
            "cost share": round(summary["cost_share"], 4),
        }
    full, routed = found["full"], found["max-loss"]
    before = routed["stages"]["ingest"] + routed["stages"]["score"]
    found["times faster"] = round(full["seconds"] / routed["seconds"], 2)
    found["prescan, share of the full job"] = round(before / full["seconds"], 4)
    return found


def main(line: Sequence[str]) -> None:
    """Measure and record one set of tiers."""
    tiers = line[0] if line else "bicubic,fsrcnn-x4,edsr-x4"
    record(f"routed job, {tiers}", f"python -m benchmarks.routed_job {tiers}", job(tiers))


if __name__ == "__main__":
    main(sys.argv[1:])
