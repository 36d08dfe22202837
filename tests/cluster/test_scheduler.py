"""A plan is made for the device of the workers that carry it out, and no other worker takes it."""

import time
from collections import deque
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from tierscale.cluster import in_flight as calls
from tierscale.cluster import pool as pools
from tierscale.cluster.in_flight import Call, InHand
from tierscale.cluster.session import session, specs
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.geometry.grid import Span
from tierscale.pipeline.plan.plan import Options
from tierscale.pipeline.run.pool import LocalPool, device_here
from tierscale.pipeline.run.run import Request, plan_only
from tierscale.pipeline.run.tasks import Quarantined
from tierscale.pipeline.run.worker import Worker


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


@pytest.mark.parametrize("gpus", [1, 2, 8])
@pytest.mark.parametrize("layout", ["auto", "split", "together"])
@pytest.mark.parametrize("device", ["auto", "cuda", "cpu"])
def test_all_workers_of_a_cluster_have_one_kind_of_device_and_find_a_place(gpus, layout, device):
    light, full = specs(
        {"CPU": 64.0, "GPU": float(gpus), "node:a": 1.0, "node:b": 1.0}, layout, device, None
    )
    pools = [pool for pool in (light, full) if pool]
    assert {pool.device for pool in pools} == {"cpu" if device == "cpu" else "cuda"}
    assert sum(pool.size * pool.num_gpus for pool in pools) <= (0 if device == "cpu" else gpus)
    assert sum(pool.size for pool in pools) <= 64 and all(pool.size > 0 for pool in pools)


def test_an_actor_that_the_memory_monitor_ended_is_replaced_and_its_calls_done_elsewhere(
    monkeypatch,
):
    """Ray tells of it by an error that is none of a dead actor; an actor that was kept would fail
    every call that it is given.
    """
    import ray

    dead = object()
    lost, held = [], [Call("finish", (number,), "light", False) for number in range(2)]
    crew = SimpleNamespace(
        given=lambda actor, count: None,
        suspects=set(),
        lost=lambda actor, error: lost.append(actor) or True,
    )
    pool = pools.RayPool.__new__(pools.RayPool)
    pool._crews, pool._waiting = {"light": crew}, {"light": deque()}
    pool._flying = {
        number: InHand(call, "light", dead, None, 0.0) for number, call in enumerate(held)
    }

    def killed(reference):
        raise ray.exceptions.OutOfMemoryError(
            "2 workers were killed due to the node running low on memory"
        )

    monkeypatch.setattr(pools.ray, "get", killed)
    pool._collect(0)
    assert (
        lost == [dead]
        and not pool._flying
        and set(map(id, pool._waiting["light"])) == set(map(id, held))
    )
    assert not any(call.future.done() for call in held)


@pytest.fixture
def hurried(monkeypatch):
    """Calls are late after a second and a half."""
    monkeypatch.setattr(calls, "LATE_SECONDS", 1.5)
    monkeypatch.setattr(calls, "FIRST_SECONDS", 1.5)


def sleeper(seconds):
    """A plan that keeps whoever asks it for anything for so long; cloudpickle takes a class in a
    function along by value.
    """

    class Sleeper:
        def __getattr__(self, name):
            if not name.startswith("__"):
                time.sleep(seconds)
            raise AttributeError(name)

    return Sleeper()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("workers", [1, 2])
def test_a_call_that_hangs_wherever_it_is_begun_is_given_up_and_the_pool_goes_on(hurried, workers):
    with session("local", "together", "cpu", workers) as pool:
        began = time.monotonic()
        hanging = pool.submit("score", sleeper(1e6), Span(3, 5))
        others = [pool.submit("ready") for _ in range(6)]
        with pytest.raises(
            Quarantined,
            match=(
                r"score\(Span\(start=3, stop=5\)\) was begun 4 times and did not end, .* within 2"
                r" s; look whether"
            ),
        ):
            hanging.result(timeout=240)
        assert time.monotonic() - began >= (pools.TRIES if workers == 1 else pools.TRIES / 2) * 1.5
        assert all(other.result(timeout=120) for other in [*others, pool.submit("ready")])


def test_a_slow_call_is_begun_twice_and_its_workers_live(hurried, caplog):
    with session("local", "together", "cpu", 2) as pool:
        with pytest.raises(AttributeError):
            pool.submit("score", sleeper(2.5), Span(0, 1)).result(timeout=60)
        assert (
            "begun elsewhere too" in caplog.text
            and "died" not in caplog.text
            and "hangs" not in caplog.text
        )


def held_by(*seconds, tries=2):
    """A pool without Ray in which as many actors have one call in hand, each for so long; and its
    actors that were ended.
    """
    ended, call = [], Call("finish", ("out.zarr", (0, 1)), "light", False, tries=tries)
    crew = SimpleNamespace(
        suspects=set(), answers=True, lost=lambda actor, error: ended.append(actor) or True
    )
    pool = pools.RayPool.__new__(pools.RayPool)
    pool._crews, pool._waiting, pool._patience = (
        {"light": crew},
        {"light": deque()},
        calls.Patience(),
    )
    pool._patience.ended("finish", 1.0)
    pool._flying = {
        number: InHand(call, "light", number, None, None if so_far is None else 1000.0 - so_far)
        for number, so_far in enumerate(seconds)
    }
    return pool, call, ended


@pytest.mark.parametrize("grows", [True, False])
def test_actors_that_find_no_place_are_not_waited_for_where_nodes_come_and_go(
    monkeypatch, caplog, grows
):
    monkeypatch.setattr(pools, "JOIN_SECONDS", 0.2)
    monkeypatch.setattr(pools, "START_SECONDS", 0.4)
    monkeypatch.setattr(
        pools.ray,
        "wait",
        lambda references, num_returns, timeout: time.sleep(timeout) or ([], references),
    )
    monkeypatch.setattr(pools.ray, "available_resources", lambda: {"CPU": 1.0})
    ended, pool = [], pools.RayPool.__new__(pools.RayPool)
    pool.width = 2
    spec = SimpleNamespace(grows=grows)
    pool._crews = {
        "light": SimpleNamespace(
            coming={"ready": "late"}, up={"early": 0}, spec=spec, kill=lambda: ended.append(True)
        )
    }
    if grows:
        pool._wait_ready()
        assert "1 of 2 workers are up" in caplog.text and not ended
    else:
        with pytest.raises(Refused, match="1 of 2 workers did not come up"):
            pool._wait_ready()
        assert ended


def test_a_copy_has_more_time_than_the_call_had():
    for copy in (119.0, None):
        pool, call, ended = held_by(300.0, copy)
        pool._late(pool._flying[0], 1000.0)
        assert not ended and not pool._waiting["light"] and not call.future.done()
    pool, call, ended = held_by(300.0, 121.0)
    pool._late(pool._flying[0], 1000.0)
    assert (
        ended == [0, 1]
        and list(pool._waiting["light"]) == [call]
        and not pool._flying
        and not call.future.done()
    )
    pool, call, ended = held_by(900.0, 481.0, tries=pools.TRIES)
    pool._late(pool._flying[1], 1000.0)
    assert ended == [0, 1] and not pool._waiting["light"]
    with pytest.raises(
        Quarantined,
        match=(
            r"finish\('out.zarr', \(0, 1\)\) was begun 4 times .* within 480 s;"
            r" .*TIERSCALE_LATE_SECONDS=60"
        ),
    ):
        call.future.result()
    assert [pool._patience.limit("finish", tries) for tries in (1, 2, 3, 4, 9)] == [
        60,
        120,
        240,
        480,
        900,
    ]


def test_a_call_that_ended_elsewhere_ends_no_worker_and_one_that_never_began_loses_no_try():
    pool, call, ended = held_by(300.0, 300.0)
    call.settle("done")
    pool._late(pool._flying[0], 1000.0)
    assert not ended and not pool._waiting["light"]
    pool, call, ended = held_by(900.0, 481.0, tries=pools.TRIES)
    behind = Call("pyramid", (), "light", False, tries=1)
    pool._flying[2] = InHand(behind, "light", 1, None, None)
    pool._late(pool._flying[0], 1000.0)
    assert list(pool._waiting["light"]) == [behind] and behind.tries == 0
