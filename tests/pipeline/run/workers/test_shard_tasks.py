"""Workers that come late, or find damage, do no harm: what they would spoil is left as it is."""

import time
from dataclasses import replace

import numpy as np
import pytest
import skimage.data
import zarr
from PIL import Image

from tierscale.pipeline.errors import Damaged
from tierscale.pipeline.formats.arrays.ingest import discard, ingest
from tierscale.pipeline.formats.registry import open_image
from tierscale.pipeline.output import store
from tierscale.pipeline.output.receipts import Folder
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.run.job import ImageJob as ImageJob
from tierscale.pipeline.run.run import Run
from tierscale.pipeline.run.verify import verify_output
from tierscale.pipeline.run.workers.pool import LocalPool
from tierscale.pipeline.run.workers.worker import Worker
from tierscale.pipeline.storage.paths import place

OPTIONS = Options(tiers=("bicubic",), tile=24)


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "stars.png"
    Image.fromarray(skimage.data.hubble_deep_field()[100:388, 200:500]).save(path)
    return path


def upscale(source, output, options=OPTIONS, **more):
    with LocalPool(1) as pool:
        Run(ImageJob(str(source), str(output), options, **more), pool).carry_out()
    return Folder(str(output)).plan()


def content(output):
    return {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}


def test_a_copy_that_is_gone_or_another_is_damage_and_never_black(source, tmp_path):
    copy = str(tmp_path / "copy.zarr")
    with open_image(source) as image:
        ingest(image, copy)
    with open_image(copy) as opened, open_image(source) as image:
        assert opened.read(0, 288, 0, 300).any()
        discard(place(copy))
        with pytest.raises(
            Damaged,
            match=(
                r"copy\.zarr was taken away by another run while it was read; give the same command"
                r" again"
            ),
        ):
            opened.read(0, 288, 0, 300)
        time.sleep(0.01)
        ingest(image, copy)
        assert opened.read(0, 288, 0, 300).any(), "the same copy made anew is as good"
        zarr.open_array(copy, mode="r+").update_attributes(
            {"tierscale_source": {"complete": False}}
        )
        with pytest.raises(Damaged, match="taken away"):
            opened.read(0, 288, 0, 300)


def test_a_copy_that_goes_while_it_is_read_is_noticed(source, tmp_path, monkeypatch):
    copy = str(tmp_path / "copy.zarr")
    with open_image(source) as image:
        ingest(image, copy)
    with open_image(copy) as opened:
        whole = type(opened.pixels.array).__getitem__

        def interrupted(self, at):
            discard(place(copy))
            return whole(self, at)

        monkeypatch.setattr(type(opened.pixels.array), "__getitem__", interrupted)
        with pytest.raises(Damaged, match="taken away"):
            opened.read(0, 288, 0, 300)


def test_a_worker_that_wakes_after_the_close_writes_nothing(source, tmp_path):
    output = tmp_path / "out.zarr"
    plan, copy = upscale(source, output, keep_source=True), Folder(str(output)).path / "source.zarr"
    plan = replace(plan, source={**plan.source, "uri": str(copy), "ingested": True})
    worker = Worker("cpu", 1)
    worker.finish(plan, str(output), (0, 0))
    discard(copy)
    before = content(tmp_path)
    for late in (
        worker,
        Worker("cpu", 1),
    ):  # one that has the copy open, and one that has yet to open it
        with pytest.raises(Damaged, match="taken away by another run"):
            late.finish(plan, str(output), (0, 0))
    assert content(tmp_path) == before


def test_a_worker_of_an_earlier_plan_leaves_the_new_output_alone(source, tmp_path):
    output = tmp_path / "out.zarr"
    copy = str(tmp_path / "copy.zarr")
    with open_image(source) as image:
        ingest(image, copy)
    first = upscale(copy, output)
    upscale(copy, output, replace(OPTIONS, tile=48), overwrite=True)
    before = content(tmp_path)
    for late in (
        lambda worker: worker.finish(first, str(output), (0, 0)),
        lambda worker: worker.pyramid(first, str(output), 1, (0, 0)),
    ):
        with pytest.raises(Damaged):
            late(Worker("cpu", 1))
    with pytest.raises(Damaged, match="was started again by another run"):
        Worker("cpu", 1).finish(first, str(output), (0, 0))
    assert content(tmp_path) == before


@pytest.mark.parametrize("way", ["truncated", "flipped", "removed", "no receipt"])
def test_a_pyramid_is_never_made_of_damage(source, tmp_path, way):
    output = tmp_path / "out.zarr"
    plan = upscale(source, output)
    folder = Folder(str(output))
    shard, receipt = output / "0/c/0/1/1", folder.path / "receipts/0/1.1.json"
    bits = bytearray(shard.read_bytes())
    bits[len(bits) // 3] ^= 4
    spoilt = {"truncated": lambda: shard.write_bytes(bits[:99]), "flipped": lambda: shard.write_bytes(bits), "removed": shard.unlink,
              "no receipt": receipt.unlink}  # fmt: skip
    spoilt[way]()
    before = content(tmp_path)
    with pytest.raises(
        Damaged, match=r"level 0 shard 1\.1 .*(verify --heal|upscale command again)"
    ):
        Worker("cpu", 1).pyramid(plan, str(output), 1, (0, 0))
    assert content(tmp_path) == before


def test_damage_before_the_pyramid_is_told_and_healed(source, tmp_path):
    whole, output = tmp_path / "whole.zarr", tmp_path / "out.zarr"
    upscale(source, whole)
    upscale(source, output)
    for file in [output / "0/c/0/0/0", *(output / "1/c").rglob("[0-9]")]:
        (
            file.unlink()
            if file.is_file() and file.parts[-5] == "1"
            else file.write_bytes(b"")
            if file.is_file()
            else None
        )
    for receipt in Folder(str(output)).path.glob("receipts/1/*"):
        receipt.unlink()
    with LocalPool(1) as pool:
        with pytest.raises(Damaged, match=r"shard 0\.0 .*verify --heal"):
            Run(ImageJob(str(source), str(output), OPTIONS), pool).carry_out()
        found = verify_output(str(output), pool, True)
        assert found["healed"] == 1
        Run(ImageJob(str(source), str(output), OPTIONS), pool).carry_out()
        assert verify_output(str(output), pool, False)["problems"] == []
    for level in (0, 1):
        np.testing.assert_array_equal(
            store.open_level(str(output), level)[:], store.open_level(str(whole), level)[:]
        )
