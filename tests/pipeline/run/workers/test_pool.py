"""A plan is made for the device of the workers that carry it out, and no other worker takes it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from tierscale.pipeline.errors import Refused
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.run.job import ImageJob as Request
from tierscale.pipeline.run.run import plan_only
from tierscale.pipeline.run.workers.pool import LocalPool, device_here
from tierscale.pipeline.run.workers.worker import Worker


@pytest.fixture
def request_of(tmp_path):
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "a.png")

    def made(device="auto"):
        return Request(
            str(tmp_path / "a.png"),
            str(tmp_path / "out.zarr"),
            Options(tiers=("bicubic",), device=device),
        )

    return made


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_plan_is_for_the_device_of_the_workers_whatever_the_driver_has(
    request_of, one_thread, monkeypatch, device
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: device == "cpu")
    with LocalPool(1) as pool:
        pool.device = device
        assert plan_only(request_of(), pool)[0].device == device
        with pytest.raises(Refused, match=f"the workers run on {device}"):
            plan_only(request_of("cpu" if device == "cuda" else "cuda"), pool)


def test_a_worker_refuses_a_plan_of_another_device(request_of, one_thread):
    with LocalPool(1) as pool:
        plan, _ = plan_only(request_of(), pool)
    worker = Worker("cpu", 1)
    with pytest.raises(
        Refused, match="the plan is for cuda and this worker runs on cpu; use --device cuda"
    ):
        worker.enlarge(replace(plan, device="cuda"), (0, 0), (0,))


@pytest.mark.skipif(torch.cuda.is_available(), reason="a machine without CUDA is needed")
def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(Refused, match="no CUDA device here"):
        device_here("cuda")
    with pytest.raises(Refused, match="no device 'tpu'"):
        device_here("tpu")
    with pytest.raises(Refused, match="install a CUDA build"):
        Worker("cuda", 1).ready()
