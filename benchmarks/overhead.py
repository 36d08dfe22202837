"""What everything around the networks costs: `make bench-overhead`.

A 4-megapixel photograph, the full tier everywhere: seconds of the whole job (reading to report;
Ray's start apart) over seconds of the bare networks on the same windows in one process, with as
many threads as the job has workers.
"""

import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from threading import local

import numpy as np
import skimage.data
import tifffile
import torch

from benchmarks.results import record
from tierscale.cluster.session import session
from tierscale.models import registry
from tierscale.models.contract.upscaler import Placement
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.plan.plan import Plan
from tierscale.pipeline.plan.policies import Full
from tierscale.pipeline.run.job import Controls, ImageJob
from tierscale.pipeline.run.run import upscale_image
from tierscale.pipeline.run.workers.pool import cores

TIERS = ("bicubic", "fsrcnn-x4", "carn-x4")


def photograph() -> np.ndarray:
    """2048 by 2048 pixels of scikit-image's astronaut and Hubble pictures, mirrored."""
    part = np.concatenate([skimage.data.astronaut(), skimage.data.astronaut()[::-1]])
    stars = skimage.data.hubble_deep_field()[:512, :1000]
    mosaic = np.concatenate(
        [
            np.concatenate([part[:512], stars], axis=1),
            np.concatenate([part[512:], stars[::-1]], axis=1),
        ]
    )
    mosaic = np.concatenate([mosaic, mosaic[:, ::-1]], axis=1)[:, :2048]
    return np.concatenate([mosaic, mosaic[::-1]])


def bare(plan: Plan, image: np.ndarray) -> float:
    """Seconds of the networks alone on all windows of a plan."""
    unit = torch.from_numpy(image.transpose(2, 0, 1).astype(np.float32) / 255)[None]
    works = [work for shard in plan.grid.all_shards() for work in plan.works(shard)]
    own = local()

    def one(work) -> None:  # type: ignore[no-untyped-def]
        if not hasattr(own, "networks"):
            torch.set_num_threads(1)
            own.networks = {
                index: registry.load(tier.name) for index, tier in enumerate(plan.tiers)
            }
        rows, columns = work.window.slices
        with torch.inference_mode():
            place = Placement(
                plan.scale, plan.grid.size, ((work.window.y.start, work.window.x.start),)
            )
            own.networks[work.tier](unit[:, :, rows, columns], place)

    with ThreadPoolExecutor(cores()) as executor:
        list(executor.map(one, works[:2]))
        began = time.perf_counter()
        list(executor.map(one, works))
        return time.perf_counter() - began


def main() -> None:
    """Measure the job and the networks three times each, in turn; record the ratio of medians."""
    image = photograph()
    jobs, networks = [], []
    options = Options(scale=Fraction(4), tiers=TIERS, policy=Full())
    with (
        tempfile.TemporaryDirectory(prefix="tierscale-bench-") as folder,
        session("local", "auto", "cpu") as pool,
    ):
        source = Path(folder) / "photo.tif"
        tifffile.imwrite(source, image, tile=(256, 256), photometric="rgb", compression="zlib")
        for attempt in range(3):
            plans: list[Plan] = []
            job = ImageJob(str(source), f"{folder}/{attempt}.zarr", options)
            began = time.perf_counter()
            upscale_image(job, pool, Controls(on_plan=plans.append))
            jobs.append(time.perf_counter() - began)
            networks.append(bare(plans[0], image))
            print(f"job {jobs[-1]:.1f} s, networks {networks[-1]:.1f} s", flush=True)
    ratio = float(np.median(jobs) / np.median(networks))
    figures = {
        "job, seconds": [round(s, 1) for s in jobs],
        "networks, seconds": [round(s, 1) for s in networks],
        "ratio of medians": round(ratio, 3),
    }
    record("overhead", "make bench-overhead", figures)


if __name__ == "__main__":
    main()
