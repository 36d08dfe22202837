"""A plan is made for the device of the workers that carry it out, and no other worker takes it."""

from collections import deque
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from cluster.session import specs
from pipeline.errors import Refused
from pipeline.plan import Options
from pipeline.pool import LocalPool, device_here
from pipeline.run import Request, plan_only
from pipeline.worker import Worker


@pytest.fixture
def request_of(tmp_path):
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "a.png")

    def made(device="auto"):
        return Request(str(tmp_path / "a.png"), str(tmp_path / "out.zarr"), Options(tiers=("bicubic",), device=device))

    return made


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_plan_is_for_the_device_of_the_workers_whatever_the_driver_has(request_of, one_thread, monkeypatch, device):
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
    with pytest.raises(Refused, match="the plan is for cuda and this worker runs on cpu; use --device cuda"):
        worker.enlarge(replace(plan, device="cuda"), (0, 0), (0,))


@pytest.mark.skipif(torch.cuda.is_available(), reason="a machine without CUDA is needed")
def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(Refused, match="no CUDA device here"):
        device_here("cuda")
    with pytest.raises(Refused, match="no device 'tpu'"):
        device_here("tpu")
    with pytest.raises(Refused, match="install a CUDA build"):
        Worker("cuda", 1).ready()


@pytest.mark.parametrize("gpus", [1, 2, 8])
@pytest.mark.parametrize("layout", ["auto", "split", "together"])
@pytest.mark.parametrize("device", ["auto", "cuda", "cpu"])
def test_all_workers_of_a_cluster_have_one_kind_of_device_and_find_a_place(gpus, layout, device):
    light, full = specs({"CPU": 64.0, "GPU": float(gpus), "node:a": 1.0, "node:b": 1.0}, layout, device, None)
    pools = [pool for pool in (light, full) if pool]
    assert {pool.device for pool in pools} == {"cpu" if device == "cpu" else "cuda"}
    assert sum(pool.size * pool.num_gpus for pool in pools) <= (0 if device == "cpu" else gpus)
    assert sum(pool.size for pool in pools) <= 64 and all(pool.size > 0 for pool in pools)


def test_an_actor_that_the_memory_monitor_ended_is_replaced_and_its_calls_done_elsewhere(monkeypatch):
    """Ray tells of it by an error that is none of a dead actor; an actor that was kept would fail every call that it is given."""
    import ray

    from cluster import pools
    from cluster.calls import Call, InHand

    dead = object()
    lost, calls = [], [Call("finish", (number,), "light", False) for number in range(2)]
    crew = SimpleNamespace(given=lambda actor, count: None, suspects=set(), lost=lambda actor, error: lost.append(actor) or True)
    pool = pools.RayPool.__new__(pools.RayPool)
    pool._crews, pool._waiting = {"light": crew}, {"light": deque()}
    pool._flying = {number: InHand(call, "light", dead, None, 0.0) for number, call in enumerate(calls)}

    def killed(reference):
        raise ray.exceptions.OutOfMemoryError("2 workers were killed due to the node running low on memory")

    monkeypatch.setattr(pools.ray, "get", killed)
    pool._collect(0)
    assert lost == [dead] and not pool._flying and set(map(id, pool._waiting["light"])) == set(map(id, calls))
    assert not any(call.future.done() for call in calls)
