"""What an array takes in memory is known before work, and what does not fit is refused then."""

import os
import subprocess
import sys
import tracemalloc

import dask.array as da
import numpy as np
import pytest
import zarr

from tests.conftest import ROOT
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.run.array import enlarge_array, memory, upscale_array, work
from tierscale.pipeline.run.array.memory import Held, bytes_in_memory, threads_that_fit
from tierscale.pipeline.run.resources import WORKER_BYTES, thread_bytes

GIB = 1 << 30
BICUBIC = Options(tiers=("bicubic",))


@pytest.fixture
def no_work(monkeypatch):
    """Nothing is planned."""
    monkeypatch.setattr(work.ArrayJob, "plan", None)


@pytest.mark.parametrize("kind", ["numpy", "zarr"])
def test_a_result_that_does_not_fit_is_refused_before_work(no_work, kind):
    shape = (3, 8000, 8000)
    array = (
        np.zeros(shape, np.uint8)
        if kind == "numpy"
        else zarr.create_array({}, shape=shape, chunks=(3, 512, 512), dtype="u1")
    )
    message = (
        r"the result of \(3, 32000, 32000\) uint8 values takes 2.86 GiB and the work on it [\d.]+"
        r" [GM]iB, but 3.00 GiB may be used; give out= a zarr array or a path"
    )
    with pytest.raises(Refused, match=message):
        upscale_array(array, 4, tiers="bicubic", max_memory=3 * GIB)


def test_this_machines_memory_is_the_limit_where_none_is_given(no_work):
    huge = zarr.create_array({}, shape=(3, 100_000, 100_000), chunks=(3, 512, 512), dtype="u1")
    with pytest.raises(Refused, match=r"takes 447 GiB .*; give out="):
        upscale_array(huge, 4, tiers="bicubic")


def test_what_stays_in_memory_counts():
    job = work.ArrayJob.of(np.zeros((3, 50, 60), np.uint8), "cyx", BICUBIC)
    draft, info = job.draft, job.inspection.source
    one = thread_bytes(draft, info, 1)
    for held in (Held(array=GIB), Held(result=GIB), Held(beside=GIB)):
        assert threads_that_fit(draft, info, held, one + GIB) == 1
        with pytest.raises(Refused):
            threads_that_fit(draft, info, held, one + GIB - 1)
    with pytest.raises(Refused, match="give out= an array of smaller chunks"):
        threads_that_fit(draft, info, Held(beside=GIB), GIB)
    with pytest.raises(Refused, match=r"on a machine that has it$") as refused:
        threads_that_fit(draft, info, Held(), WORKER_BYTES)
    assert f"max_memory={one}" in str(refused.value)


def test_where_memory_is_short_fewer_threads_work(monkeypatch):
    monkeypatch.setattr(memory, "cores", lambda: 8)
    job = work.ArrayJob.of(np.zeros((3, 300, 300), np.uint8), "cyx", BICUBIC)
    draft, info = job.draft, job.inspection.source
    for threads in (1, 3, 8):
        allowed = thread_bytes(draft, info, threads)
        assert threads_that_fit(draft, info, Held(), allowed) == threads
    assert threads_that_fit(draft, info, Held(), 100 * GIB) == 8


def test_a_smaller_tile_is_advised_where_it_would_fit():
    job = work.ArrayJob.of(
        da.zeros((3, 30_000, 30_000), chunks=500, dtype=np.uint8),
        "cyx",
        Options(tiers=("bicubic",), tile=1024),
    )
    draft, info = job.draft, job.inspection.source
    with pytest.raises(Refused, match=r"; give tile=\d+, or give max_memory=\d+ on a machine"):
        threads_that_fit(draft, info, Held(), thread_bytes(draft, info, 1) - 1)


def test_only_what_is_in_memory_counts_as_such(tmp_path):
    inner = np.zeros((10, 20), np.uint16)
    assert bytes_in_memory(inner) == 400 and bytes_in_memory(inner[2:4]) == 80
    mapped = np.memmap(tmp_path / "a", np.uint8, "w+", shape=(10, 20))
    assert bytes_in_memory(mapped) == bytes_in_memory(np.asarray(mapped)[2:]) == 0
    assert bytes_in_memory(da.zeros((10, 20))) == bytes_in_memory(zarr.zeros((10, 20))) == 0


@pytest.mark.parametrize("axes", ["cyx", "yxc"])
def test_one_result_is_held_and_no_copy_of_it(axes):
    shape = (3, 500, 520) if axes == "cyx" else (500, 520, 3)
    result = 16 * 3 * 500 * 520
    tracemalloc.start()
    try:
        upscale_array(np.zeros(shape, np.uint8), 4, tiers="bicubic", tile=16, axes=axes)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert result < peak < 1.7 * result


def test_with_out_no_result_is_held(tmp_path):
    result = 16 * 3 * 500 * 520
    lazy = da.zeros((3, 500, 520), chunks=100, dtype=np.uint8)
    upscale_array(lazy[:, :100, :100], 4, tiers="bicubic", tile=16, out=tmp_path / "first.zarr")
    tracemalloc.start()
    try:
        upscale_array(lazy, 4, tiers="bicubic", tile=16, out=tmp_path / "a.zarr")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 0.7 * result


PEAK = """
import sys
import dask.array as da, numpy as np, tierscale
from tests.memory import peak
side = int(sys.argv[1])
lazy = da.zeros((3, side, side), np.uint8, chunks=256)
tierscale.upscale_array(lazy, 4, tiers="bicubic", out=sys.argv[2])
print(peak())
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_image(tmp_path):
    """The result grows from 48 to 768 MiB."""
    peaks = []
    for side in (1024, 4096):
        done = subprocess.run(
            [sys.executable, "-c", PEAK, str(side), str(tmp_path / f"{side}.zarr")],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=280,
        )
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout))
    assert peaks[1] - peaks[0] < 150 << 20


def test_the_settings_of_the_process_stay_as_they_are():
    before = zarr.config.get("async.concurrency"), zarr.config.get("threading.max_workers")
    enlarge_array(np.zeros((3, 20, 20), np.uint8), BICUBIC)
    assert (
        zarr.config.get("async.concurrency"),
        zarr.config.get("threading.max_workers"),
    ) == before
