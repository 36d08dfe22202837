"""Workers that come late, or find damage, do no harm: what they would spoil is left as it is."""

from dataclasses import replace

import numpy as np
import pytest
import skimage.data
from PIL import Image

from tests.pipeline.run.upscaling import plan_at, upscale
from tierscale.pipeline.errors import Damaged
from tierscale.pipeline.formats.arrays.ingest import discard, ingest
from tierscale.pipeline.formats.registry import open_image
from tierscale.pipeline.output import store
from tierscale.pipeline.output.receipts import Folder
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.run.job import Controls
from tierscale.pipeline.run.verify import Look, verify_output
from tierscale.pipeline.run.workers.pool import InProcess, LocalPool
from tierscale.pipeline.run.workers.shard_tasks import FinishShard, HalveShards
from tierscale.pipeline.run.workers.worker import Worker

OPTIONS = Options(tiers=("bicubic",), tile=24)


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "stars.png"
    Image.fromarray(skimage.data.hubble_deep_field()[100:388, 200:500]).save(path)
    return path


def content(output):
    return {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}


def test_a_worker_that_wakes_after_the_close_writes_nothing(source, tmp_path):
    output = tmp_path / "out.zarr"
    upscale(source, output, OPTIONS, keep_source=True)
    plan, copy = plan_at(output), Folder(str(output)).path / "source.zarr"
    task = FinishShard(InProcess(plan), plan.source.copied_to(str(copy)), str(output), (0, 0))
    worker = Worker("cpu")
    task.run(worker)
    discard(copy)
    before = content(tmp_path)
    # One that has the copy open, and one that has yet to open it.
    for late in (worker, Worker("cpu")):
        with pytest.raises(Damaged, match="removed by another run"):
            task.run(late)
    assert content(tmp_path) == before


def test_a_worker_of_an_earlier_plan_leaves_the_new_output_alone(source, tmp_path):
    output = tmp_path / "out.zarr"
    copy = str(tmp_path / "copy.zarr")
    with open_image(source) as image:
        ingest(image, copy)
    upscale(copy, output, OPTIONS)
    first = plan_at(output)
    upscale(copy, output, replace(OPTIONS, tile=48), overwrite=True)
    before = content(tmp_path)
    plan = InProcess(first)
    finish = FinishShard(plan, first.source.in_place, str(output), (0, 0))
    for late in (finish, HalveShards(plan, str(output), 1, (0, 0))):
        with pytest.raises(Damaged):
            late.run(Worker("cpu"))
    with pytest.raises(Damaged, match="was started again by another run"):
        finish.run(Worker("cpu"))
    assert content(tmp_path) == before


@pytest.mark.parametrize("way", ["truncated", "flipped", "removed", "no receipt"])
def test_a_pyramid_is_never_made_of_damage(source, tmp_path, way):
    output = tmp_path / "out.zarr"
    upscale(source, output, OPTIONS)
    shard, receipt = output / "0/c/0/1/1", Folder(str(output)).path / "receipts/0/1.1.json"
    bits = bytearray(shard.read_bytes())
    bits[len(bits) // 3] ^= 4
    spoil = {
        "truncated": lambda: shard.write_bytes(bits[:99]),
        "flipped": lambda: shard.write_bytes(bits),
        "removed": shard.unlink,
        "no receipt": receipt.unlink,
    }
    spoil[way]()
    before = content(tmp_path)
    task = HalveShards(InProcess(plan_at(output)), str(output), 1, (0, 0))
    with pytest.raises(
        Damaged, match=r"level 0 shard 1\.1 .*(verify --heal|upscale command again)"
    ):
        task.run(Worker("cpu"))
    assert content(tmp_path) == before


def test_damage_before_the_pyramid_is_reported_and_healed(source, tmp_path):
    """It comes after the run has looked at what was there."""
    whole, output = tmp_path / "whole.zarr", tmp_path / "out.zarr"
    upscale(source, whole, OPTIONS)

    def empty(stage, done, total):
        if stage == "pyramid":
            (output / "0/c/0/0/0").write_bytes(b"")

    with pytest.raises(Damaged, match=r"shard 0\.0 .*verify --heal"):
        upscale(source, output, OPTIONS, Controls(empty))
    with LocalPool(1) as pool:
        healed = verify_output(str(output), pool, Look(heal=True)).healed
    assert healed == 1, "the shard; what was not made yet is left to the run"
    upscale(source, output, OPTIONS)
    with LocalPool(1) as pool:
        assert verify_output(str(output), pool, Look()).problems == ()
    for level in (0, 1):
        np.testing.assert_array_equal(
            store.open_level(str(output), level)[:], store.open_level(str(whole), level)[:]
        )
