"""Several real nodes on one machine: work goes where it belongs, and nodes come and go."""

import logging
import os
import signal
import time

import numpy as np
import psutil
import pytest
import skimage.data
import zarr
from PIL import Image

from tierscale.cluster import stragglers
from tierscale.cluster.session import session
from tierscale.pipeline.errors import Damaged
from tierscale.pipeline.plan.options import Options, Selection
from tierscale.pipeline.plan.policies import Budget
from tierscale.pipeline.run.job import Controls, ImageJob
from tierscale.pipeline.run.run import upscale_image
from tierscale.pipeline.run.workers.pool import LocalPool
from tierscale.pipeline.run.workers.prescan_tasks import IngestSource

OPTIONS = Options(tiers=("bicubic", "fsrcnn-x4"), policy=Budget(0.9), tile=24)


@pytest.fixture(scope="module")
def nodes():
    """A head that computes nothing, two light nodes and a full one."""
    import ray
    from ray.cluster_utils import Cluster

    small = {"object_store_memory": 80 << 20}
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, **small, "include_dashboard": False}
    )
    cluster.light = [
        cluster.add_node(num_cpus=1, resources={"light": 1}, **small) for _ in range(2)
    ]
    cluster.full = cluster.add_node(num_cpus=1, resources={"full": 1}, **small)
    ray.init(address=cluster.address, logging_level=logging.ERROR, log_to_driver=False)
    try:
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "stars.png"
    Image.fromarray(skimage.data.hubble_deep_field()[100:580, 200:680]).save(path)
    return path


@pytest.fixture(scope="module")
def plain(source, tmp_path_factory):
    output = tmp_path_factory.mktemp("plain") / "out.zarr"
    with LocalPool(1) as pool:
        upscale_image(ImageJob(str(source), str(output), OPTIONS), pool)
    return zarr.open_array(f"{output}/0", mode="r")[:]


def homes():
    """Node of each living worker, with the mark that it asked for."""
    import ray
    from ray._private.state import actors

    alive = [actor for actor in actors().values() if actor["State"] == "ALIVE"]
    names = {
        node["NodeID"]: next(
            (mark for mark in ("light", "full") if mark in node["Resources"]), None
        )
        for node in ray.nodes()
    }
    return [(names[actor["Address"]["NodeID"]], actor["Address"]["NodeID"]) for actor in alive]


def run_with(nodes, source, output, at, meddle):
    """Enlarge on the cluster; after `at` shards, meddle() once. The pixels."""
    meddled = []

    def on_progress(stage, done, total):
        if stage == "enlarge" and done >= at and not meddled:
            meddled.append(meddle())

    with session(nodes.address, "auto", "cpu") as pool:
        found = upscale_image(
            ImageJob(str(source), str(output), OPTIONS), pool, Controls(on_progress)
        )
    assert meddled and found.shards > 16
    return zarr.open_array(f"{output}/0", mode="r")[:]


@pytest.mark.slow
def test_work_goes_to_the_nodes_that_ask_for_it(nodes, source, plain, tmp_path):
    seen = []
    pixels = run_with(nodes, source, tmp_path / "out.zarr", 4, lambda: seen.extend(homes()))
    assert (
        sorted(mark for mark, _ in seen) == ["full", "light", "light"]
        and len({node for _, node in seen}) == 3
    )
    np.testing.assert_array_equal(pixels, plain)


def test_nodes_are_taken_away_and_added_in_the_middle(nodes, source, plain, tmp_path):
    seen = []

    def meddle():
        seen.extend(mark for mark, _ in homes())
        nodes.remove_node(nodes.light.pop(), allow_graceful=False)
        nodes.remove_node(nodes.full, allow_graceful=False)
        nodes.full = nodes.add_node(num_cpus=1, resources={"full": 1}, object_store_memory=80 << 20)

    np.testing.assert_array_equal(run_with(nodes, source, tmp_path / "out.zarr", 4, meddle), plain)
    assert sorted(seen) == ["full", "light", "light"], "each worker is at home where its mark is"
    assert len(nodes.light) == 1, (
        "the lost light node never came back, and its share was done by the other"
    )
    nodes.light.append(
        nodes.add_node(num_cpus=1, resources={"light": 1}, object_store_memory=80 << 20)
    )


@pytest.mark.slow
def test_a_worker_that_stands_still_holds_nothing_up(nodes, source, plain, tmp_path, monkeypatch):
    """Its shards are started elsewhere, and what it writes when it wakes does no harm."""
    monkeypatch.setattr(stragglers, "LATE_SECONDS", 2.0)
    # Where it is stopped in its very first call, nobody knows yet how long that takes.
    monkeypatch.setattr(stragglers, "FIRST_SECONDS", 20.0)
    stopped = []

    def meddle():
        workers = [
            p
            for p in psutil.process_iter(["cmdline"])
            if p.info["cmdline"] and "ray::Worker" in p.info["cmdline"][0] and ours(p)
        ]
        stopped.append(workers[0])
        os.kill(workers[0].pid, signal.SIGSTOP)

    def ours(process):
        return any(parent.pid == os.getpid() for parent in process.parents())

    began = time.monotonic()
    try:
        pixels = run_with(nodes, source, tmp_path / "out.zarr", 4, meddle)
    finally:
        for process in stopped:
            if process.is_running():
                os.kill(process.pid, signal.SIGCONT)
    np.testing.assert_array_equal(pixels, plain)
    assert time.monotonic() - began < 200


@pytest.mark.slow
def test_a_file_that_keeps_its_decoder_busy_is_given_up(nodes, source, tmp_path, monkeypatch):
    copy, again = str(tmp_path / "copy.zarr"), str(tmp_path / "again.zarr")
    monkeypatch.setattr(stragglers, "DECODE_SECONDS", 0.001)
    with session(nodes.address, "auto", "cpu") as pool:
        with pytest.raises(
            Damaged, match=r"stars\.png: decoding took more than 0 s and was given up"
        ):
            pool.submit(IngestSource(str(source), Selection(), copy, None)).result(timeout=60)
        monkeypatch.setattr(stragglers, "DECODE_SECONDS", 100.0)
        pool.submit(IngestSource(str(source), Selection(), again, None)).result(timeout=100)
