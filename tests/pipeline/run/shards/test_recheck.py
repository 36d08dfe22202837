"""What a power failure leaves behind receipts is found, and made again."""

import json
import math
import os
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
import pytest
import skimage.data
import zarr
from PIL import Image

from tests.disk_trace import DiskTrace
from tests.pipeline.run.upscaling import upscale
from tierscale.pipeline.errors import Damaged
from tierscale.pipeline.output.receipts import Folder
from tierscale.pipeline.output.stored_files import StoredFile
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.run.job import Controls, ImageJob
from tierscale.pipeline.run.run import Stopped, upscale_image
from tierscale.pipeline.run.shards import recheck
from tierscale.pipeline.run.workers.pool import LocalPool
from tierscale.pipeline.run.workers.shard_tasks import VerifyShard

OPTIONS = Options(tiers=("bicubic",), tile=24)
# Shards of the 288 x 300 pixels, of full resolution and of the smaller level.
SHARDS = {0: 2 * 3, 1: 1 * 2}
FULL, SMALL = "0/c/0/1/2", "1/c/0/0/1"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "stars.tif"
    Image.fromarray(skimage.data.hubble_deep_field()[100:388, 200:500]).save(path)
    return path


@pytest.fixture
def output(source, tmp_path):
    upscale(source, tmp_path / "out.zarr", OPTIONS)
    return tmp_path / "out.zarr"


def levels(output):
    return [zarr.open_array(f"{output}/{level}", mode="r")[:] for level in (0, 1)]


def zero(file):
    file.write_bytes(bytes(file.stat().st_size))


def cut(file):
    os.truncate(file, file.stat().st_size // 2)


WAYS = {"emptied": lambda file: file.write_bytes(b""), "cut": cut, "gone": Path.unlink}


@pytest.fixture
def hashed(monkeypatch):
    """The shards that were read back by themselves, by level."""
    counted = Counter()
    run = VerifyShard.run

    def counting(task, worker):
        counted[task.receipt.level] += 1
        return run(task, worker)

    monkeypatch.setattr(VerifyShard, "run", counting)
    return counted


@pytest.mark.parametrize("level", ["0", "1"])
@pytest.mark.parametrize("way", [*WAYS, "zeroed"])
def test_what_a_power_failure_leaves_behind_a_receipt_is_made_again(source, output, way, level):
    wanted, file = levels(output), output / {"0": FULL, "1": SMALL}[level]
    {**WAYS, "zeroed": zero}[way](file)
    again = upscale(source, output, OPTIONS)
    assert (again.status, again.written, again.done_before) == ("done", 1, again.shards - 1)
    assert any("1 shards were not on the disk as they were written" in n for n in again.notes)
    for left, right in zip(levels(output), wanted, strict=True):
        np.testing.assert_array_equal(left, right)
    assert upscale(source, output, OPTIONS).written == 0


def test_shards_are_on_the_disk_before_their_receipts(source, tmp_path, monkeypatch):
    trace, output = DiskTrace(monkeypatch), tmp_path / "out.zarr"
    upscale(source, output, OPTIONS)
    folder = Folder(str(output)).path
    receipts = list(folder.glob("receipts/*/*.json"))
    documents = [output / name for name in ("zarr.json", "0/zarr.json", "1/zarr.json")]
    ready = max(map(trace.durable, [folder / "plan.json", *documents]))
    for receipt in receipts:
        y, x = receipt.stem.split(".")
        shard = output / receipt.parent.name / "c" / "0" / y / x
        assert ready < trace.durable(shard) < trace.named(receipt) < trace.durable(receipt)
    for name in ("tiles.parquet", "summary.json", "report.html", "preview.png", "routing.png"):
        trace.durable(folder / name)
    assert len(receipts) == sum(SHARDS.values())


@pytest.mark.parametrize(
    "checked, started, until",
    [
        # Never looked at: what was written since the start, and in the last minute before it.
        (None, 1000.0, 900.0 - 60),
        (None, 50.0, -math.inf),
        (None, -math.inf, -math.inf),
        # Looked at since the start: what was written since.
        ({"at": 1500.0, "until": 1400.0}, 1000.0, 1400.0),
        ({"at": 1500.0, "until": 1400.0}, -math.inf, 1400.0),
        # Looked at before the start: the last minute of that may have been read from memory.
        ({"at": 1500.0, "until": 1400.0}, 2000.0, 1340.0),
    ],
)
def test_which_shards_are_read_back(checked, started, until):
    files = [StoredFile(1, time) for time in (100.0, 900.0, 1200.0)]
    assert recheck.trusted_until(files, checked, started) == until


def test_the_start_of_the_machine_is_that_of_the_kernel(monkeypatch):
    stat = Path("/proc/stat").read_text()
    wanted = float(next(line for line in stat.splitlines() if "btime" in line).split()[1])
    assert abs(recheck.machine_started() - wanted) <= 2

    def unknown():
        raise RuntimeError("line 'btime' was not found in /proc/stat")

    monkeypatch.setattr(psutil, "boot_time", unknown)
    assert recheck.machine_started() == -math.inf


def test_shards_are_read_back_once(source, tmp_path, hashed):
    """The pyramid reads those of full resolution; a finished output is not read at each look."""
    output = tmp_path / "out.zarr"
    upscale(source, output, OPTIONS)
    assert hashed == {1: SHARDS[1]}
    upscale(source, output, OPTIONS)
    assert hashed == {1: SHARDS[1]}
    (output / FULL).touch()
    upscale(source, output, OPTIONS)
    assert hashed == {1: SHARDS[1], 0: 1}


def test_a_run_that_goes_on_reads_back_what_is_there(source, tmp_path, hashed):
    output, stop = tmp_path / "out.zarr", threading.Event()

    def stop_at(stage, done, total):
        if stage == "enlarge" and done == 5:
            stop.set()

    with pytest.raises(Stopped):
        upscale(source, output, OPTIONS, Controls(stop_at, stop))
    done = len(list(output.glob("0/c/0/*/*")))
    zero(next(output.glob("0/c/0/*/*")))
    again = upscale(source, output, OPTIONS)
    assert hashed[0] == done and again.done_before == done - 1


@pytest.mark.parametrize("age, again", [(30.0, 1), (90.0, 0)])
def test_after_a_start_the_last_minute_is_read_back_once_more(
    source, output, monkeypatch, age, again
):
    """What was looked at in the minute in which it was written may have come from memory."""
    monkeypatch.setattr(recheck, "machine_started", lambda: time.time() + 1000)
    newest = max(file.stat().st_mtime for file in output.glob("*/c/0/*/*"))
    zero(output / FULL)
    os.utime(output / FULL, (newest - age, newest - age))
    assert upscale(source, output, OPTIONS).written == again


def test_a_shard_that_is_lost_stays_lost_until_it_is_made(source, output):
    """A run that is stopped between the look and the making takes the receipt with it."""
    zero(output / FULL)
    stop = threading.Event()

    def stop_at(stage, done, total):
        if stage == "enlarge":
            stop.set()

    with pytest.raises(Stopped):
        upscale(source, output, OPTIONS, Controls(stop_at, stop))
    assert not (Folder(str(output)).path / "receipts/0/1.2.json").exists()
    assert upscale(source, output, OPTIONS).written == 1


@pytest.mark.parametrize("way", [*WAYS, "zeroed", "without a receipt"])
def test_the_close_looks_at_every_shard(source, tmp_path, way):
    output = tmp_path / "out.zarr"

    def spoil(stage, done, total):
        if stage == "pyramid" and done == total > 0:
            if way == "without a receipt":
                (Folder(str(output)).path / "receipts/1/0.1.json").unlink()
            else:
                {**WAYS, "zeroed": zero}[way](output / SMALL)

    with pytest.raises(Damaged, match=r"out\.zarr .*(level 1 shard 0\.1|\(1, 0, 1\))"):
        upscale(source, output, OPTIONS, Controls(spoil))
    assert upscale(source, output, OPTIONS).written == 1


def test_a_shard_that_was_written_again_by_a_late_worker_is_not_damage(source, tmp_path):
    """Its memory ran out, so that its bytes and its receipt are others by now."""
    output = tmp_path / "out.zarr"

    def rewrite(stage, done, total):
        if stage == "pyramid" and done == total > 0:
            shard, receipt = output / FULL, Folder(str(output)).path / "receipts/0/1.2.json"
            content = shard.read_bytes() + b"more"
            shard.write_bytes(content)
            plain = json.loads(receipt.read_text())
            receipt.write_text(json.dumps({**plain, "bytes": len(content)}))

    assert upscale(source, output, OPTIONS, Controls(rewrite)).status == "done"


def test_receipts_without_a_length_are_hashed_as_before(source, output):
    for receipt in Folder(str(output)).path.glob("receipts/*/*.json"):
        plain = json.loads(receipt.read_text())
        del plain["format"]
        receipt.write_text(json.dumps(plain))
    (output / FULL).unlink()
    (output / "0/c/0/0/0").write_bytes(b"")
    assert upscale(source, output, OPTIONS).written == 2


def test_what_killed_writers_left_is_gone_after_the_close(source, output):
    (output / "0/c/0/0/1.12ab.tmp").write_bytes(b"half")
    upscale(source, output, OPTIONS)
    assert not list(output.rglob("*.tmp"))


def test_pixels_are_read_back_by_workers(source, output):
    asked = []

    class Watched(LocalPool):
        def submit(self, task, kind="light", as_reference=False):
            asked.append(type(task).__name__)
            return super().submit(task, kind, as_reference)

    (output / FULL).touch()
    with Watched(1) as pool:
        upscale_image(ImageJob(str(source), str(output), OPTIONS), pool)
    assert asked == ["VerifyShard", "DrawPictures"]
