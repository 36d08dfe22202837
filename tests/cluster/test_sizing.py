"""How many workers of each kind a cluster gets."""

import pytest

from tierscale.cluster.sizing import specs_by_mark, specs_by_resources
from tierscale.pipeline.errors import Refused

LIGHT, FULL = {"CPU": 4.0, "light": 3.0}, {"CPU": 8.0, "full": 2.0}


@pytest.mark.parametrize("gpus", [1, 2, 8])
@pytest.mark.parametrize("layout", ["auto", "split", "together"])
@pytest.mark.parametrize("device", ["auto", "cuda", "cpu"])
def test_all_workers_of_a_cluster_have_one_kind_of_device_and_find_room(gpus, layout, device):
    resources = {"CPU": 64.0, "GPU": float(gpus), "node:a": 1.0, "node:b": 1.0}
    pools = [spec for spec in specs_by_resources(resources, layout, device, None) if spec]
    assert {pool.device for pool in pools} == {"cpu" if device == "cpu" else "cuda"}
    assert sum(pool.size * pool.num_gpus for pool in pools) <= (0 if device == "cpu" else gpus)
    assert sum(pool.size for pool in pools) <= 64 and all(pool.size > 0 for pool in pools)


def test_nodes_say_how_many_workers_of_each_kind_they_take():
    light, full = specs_by_mark([{"CPU": 0.0}, LIGHT, LIGHT, FULL], "auto", "auto", None)
    assert (light.size, light.mark, full.size, full.mark) == (6, "light", 2, "full")
    assert {light.device, full.device} == {"cpu"} and light.num_cpus == 0 and light.grows
    assert specs_by_mark([{"CPU": 4.0}], "auto", "auto", None) is None
    assert specs_by_mark([LIGHT, FULL], "together", "auto", None) is None


@pytest.mark.parametrize(
    ("workers", "sizes"), [(1, (1, 1)), (2, (1, 1)), (3, (2, 1)), (5, (3, 2)), (99, (3, 2))]
)
def test_workers_are_a_limit_of_which_half_are_full(workers, sizes):
    light, full = specs_by_mark([LIGHT, FULL], "split", "cpu", workers)
    assert (light.size, full.size) == sizes and not light.grows


@pytest.mark.parametrize(("kind", "node", "size"), [("light", LIGHT, 6), ("full", FULL, 4)])
def test_one_kind_of_node_does_all_the_work_by_its_mark_and_grows(kind, node, size):
    only, none = specs_by_mark([{"CPU": 0.0}, node, node], "split", "auto", None)
    assert none is None
    assert (only.mark, only.size, only.num_cpus, only.grows) == (kind, size, 0, True)
    limited = specs_by_mark([node], "auto", "cpu", 1)
    assert limited is not None and limited[0].size == 1


@pytest.mark.parametrize("gpus", [1, 2, 4])
def test_workers_of_a_node_share_its_gpus(gpus):
    both = {"CPU": 8.0, "light": 4.0, "full": 2.0, "GPU": float(gpus)}
    light, full = specs_by_mark([both], "auto", "cuda", None)
    assert 0.9 * min(gpus, 6) <= light.size * light.num_gpus + full.size * full.num_gpus <= gpus
    assert light.num_gpus <= 1 and full.num_gpus <= 1, "a worker uses one"


def test_nodes_of_two_kinds_of_device_are_refused():
    nodes = [LIGHT, {**FULL, "GPU": 1.0}]
    for device in ("auto", "cuda"):
        with pytest.raises(Refused, match="have no GPU"):
            specs_by_mark(nodes, "auto", device, None)
    assert specs_by_mark(nodes, "auto", "cpu", None)[1].device == "cpu"


def test_a_cluster_without_a_gpu_refuses_cuda():
    with pytest.raises(Refused, match="the Ray cluster has no GPU"):
        specs_by_resources({"CPU": 4.0}, "auto", "cuda", None)
