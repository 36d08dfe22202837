"""Ray gives the bytes of the plain loop, in both layouts; a shard alone is the shard of the run."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import skimage.data
import zarr
from PIL import Image

from tests.conftest import ROOT
from tierscale.pipeline.formats.arrays.ingest import ingest
from tierscale.pipeline.formats.registry import open_image
from tierscale.pipeline.output.receipts import Folder
from tierscale.pipeline.plan.precision import BFLOAT16
from tierscale.pipeline.run.workers import processor
from tierscale.pipeline.run.workers.pool import InProcess
from tierscale.pipeline.run.workers.shard_tasks import FinishShard
from tierscale.pipeline.run.workers.worker import Worker

OPTIONS = ("--tiers", "bicubic,fsrcnn-x4,carn-x4", "--tile", "32", "--policy", "adaptive")


def run(*arguments, **more):
    done = subprocess.run(
        [sys.executable, "-m", "tierscale", *map(str, arguments), "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        **more,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    Image.fromarray(skimage.data.astronaut()[:230, 100:370]).save(folder / "in.png")
    summary = run("upscale", folder / "in.png", folder / "out.zarr", *OPTIONS, "--ray", "none")
    assert min(summary["tiles"].values()) > 0, "the test needs tiles of every tier"
    return folder, summary


@pytest.mark.slow
def test_ray_gives_the_bytes_of_the_plain_loop_in_bfloat16(plain, tmp_path):
    folder, _ = plain
    env = {name: value for name, value in os.environ.items() if name != processor.LIMIT}
    if processor.bfloat16_of(processor.CPUINFO.read_text()) is None:
        pytest.skip("this processor has no bfloat16")
    options = (*OPTIONS, "--precision", "bf16")
    for name, ray in (("loop", ("--ray", "none")), ("ray", ("--layout", "split"))):
        run("upscale", folder / "in.png", tmp_path / f"{name}.zarr", *options, *ray, env=env)
    one, other = (Folder(str(tmp_path / f"{name}.zarr")) for name in ("loop", "ray"))
    assert one.plan() == other.plan() and one.plan().precision in BFLOAT16
    receipts = [
        sorted((r.key, r.pixels_sha256, r.precision) for r in folder.receipts(folder.plan().digest))
        for folder in (one, other)
    ]
    assert receipts[0] == receipts[1]


@pytest.mark.parametrize("layout", ["split", pytest.param("together", marks=pytest.mark.slow)])
def test_ray_gives_the_bytes_of_the_plain_loop(plain, tmp_path, layout):
    folder, summary = plain
    found = run("upscale", folder / "in.png", tmp_path / "out.zarr", *OPTIONS, "--layout", layout)
    assert (
        found["plan"] == summary["plan"]
        and found["tiles"] == summary["tiles"]
        and found["cost"] == summary["cost"]
    )
    for level in range(2):
        a, b = (
            zarr.open_array(f"{output}/{level}", mode="r")[:]
            for output in (folder / "out.zarr", tmp_path / "out.zarr")
        )
        np.testing.assert_array_equal(a, b)


def test_a_shard_alone_is_the_shard_of_the_run(plain, one_thread):
    folder, _ = plain
    output = str(folder / "out.zarr")
    plan = Folder(output).plan()
    before = {receipt.key: receipt for receipt in Folder(output).receipts(plan.digest)}
    with open_image(plan.source.uri) as source:
        ingest(source, str(folder / "source.zarr"))
    pixels = plan.source.copied_to(str(folder / "source.zarr"))
    worker = Worker("cpu")
    for shard in ((1, 0), (0, 1)):
        again = FinishShard(InProcess(plan), pixels, output, shard).run(worker)
        assert again.pixels_sha256 == before[(0, *shard)].pixels_sha256


@pytest.mark.slow
def test_weights_that_were_replaced_make_the_next_image_in_every_process(tmp_path):
    """Workers live on, in processes of their own, while a file is replaced under its name."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.replaced", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert "each image was made with what its plan names" in done.stdout
