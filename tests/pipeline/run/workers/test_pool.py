"""A plan is made for the device of the workers that carry it out, and no other worker takes it."""

import os
import threading
from dataclasses import dataclass, replace

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from tierscale.pipeline.errors import Refused
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.run.array import upscale_array
from tierscale.pipeline.run.job import ImageJob
from tierscale.pipeline.run.run import plan_only
from tierscale.pipeline.run.workers.pool import InProcess, LocalPool, cores, device_here
from tierscale.pipeline.run.workers.prescan_tasks import CheckReady
from tierscale.pipeline.run.workers.shard_tasks import EnlargeTiles
from tierscale.pipeline.run.workers.worker import Worker

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def job_for(tmp_path):
    """A function that makes a job for a device."""
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "a.png")

    def job(device="auto"):
        options = Options(tiers=("bicubic",), device=device)
        return ImageJob(str(tmp_path / "a.png"), str(tmp_path / "out.zarr"), options)

    return job


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_plan_is_for_the_device_of_the_workers_whatever_the_driver_has(
    job_for, monkeypatch, device
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: device == "cpu")
    with LocalPool(1) as pool:
        pool.device = device
        assert plan_only(job_for(), pool)[0].device == device
        with pytest.raises(Refused, match=f"the workers run on {device}"):
            plan_only(job_for("cpu" if device == "cuda" else "cuda"), pool)


def test_a_worker_refuses_a_plan_of_another_device(job_for):
    with LocalPool(1) as pool:
        plan, _ = plan_only(job_for(), pool)
    other = InProcess(replace(plan, device="cuda"))
    with pytest.raises(
        Refused, match="the plan is for cuda and this worker runs on cpu; use --device cuda"
    ):
        EnlargeTiles(other, plan.source.in_place, (0, 0), (0,)).run(Worker("cpu"))


def test_a_worker_refuses_weights_that_are_not_the_plans(job_for):
    with LocalPool(1) as pool:
        plan, _ = plan_only(job_for(), pool)
    tier = replace(plan.tiers[0], weights="0" * 64)
    other = InProcess(replace(plan, tiers=(tier,)))
    with pytest.raises(Refused, match=r"weights of bicubic here have digest .*, the plan has 0000"):
        EnlargeTiles(other, plan.source.in_place, (0, 0), (0,)).run(Worker("cpu"))


def test_a_value_that_stays_where_it_was_made_is_given_as_its_handle():
    class Pair:
        def run(self, worker):
            return 2, ["a", "b"]

    with LocalPool(1) as pool:
        assert pool.submit(Pair()).result() == (2, ["a", "b"])
        assert pool.submit(Pair(), as_reference=True).result().get() == ["a", "b"]
        value = object()
        assert pool.put(value).get() is value


def test_processors_are_counted_where_a_process_cannot_ask_which_are_its_own(monkeypatch):
    """macOS and Windows have no os.sched_getaffinity."""
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 3, 5}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    assert cores() == 7
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores() == 1
    pixels = np.zeros((3, 20, 30), np.uint8)
    assert upscale_array(pixels, 2, tiers="bicubic").shape == (3, 40, 60)


def test_one_task_computes_on_a_worker_while_others_wait_for_the_disk():
    """All threads of a worker have one network, one thread of torch, and take turns."""
    computing, most, written = set(), [], threading.Event()

    @dataclass(frozen=True)
    class Writes:
        name: str

        def run(self, worker):
            computing.add(self.name)
            most.append(len(computing))
            threads = torch.get_num_threads()
            computing.discard(self.name)
            worker.rest()
            if self.name == "first":
                assert written.wait(30), "the second one did not begin while the first one wrote"
            written.set()
            return self.name, threads, id(worker)

    with LocalPool(1) as pool:
        futures = [pool.submit(Writes(name)) for name in ("first", "second", "third")]
        ends = [future.result() for future in futures]
    assert [name for name, _, _ in ends] == ["first", "second", "third"] and max(most) == 1
    assert {threads for _, threads, _ in ends} == {1} and len({one for _, _, one in ends}) == 1


def test_a_task_that_fails_ends_its_turn():
    class Fails:
        def run(self, worker):
            raise RuntimeError("lost")

    class Works:
        def run(self, worker):
            worker.rest()
            worker.rest()
            return "done"

    with LocalPool(1) as pool:
        with pytest.raises(RuntimeError, match="lost"):
            pool.submit(Fails()).result()
        assert [pool.submit(Works()).result() for _ in range(3)] == ["done"] * 3


@pytest.mark.skipif(torch.cuda.is_available(), reason="a machine without CUDA is needed")
def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(Refused, match="no CUDA device here"):
        device_here("cuda")
    with pytest.raises(Refused, match="no device 'tpu'"):
        device_here("tpu")
    with pytest.raises(Refused, match="install a CUDA build"):
        CheckReady().run(Worker("cuda"))
