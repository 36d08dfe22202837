"""Large values in the object store: what a call carries and takes does not grow with the image."""

import pickle
import statistics
import time

import numpy as np
import pytest

from tests.plans import SOURCE, draft_of, plan_of
from tierscale.cluster import objects
from tierscale.cluster.objects import KEPT, ObjectHandle
from tierscale.pipeline.plan import stored
from tierscale.pipeline.run.workers.shard_tasks import FinishShard


class Store:
    """What ray.get() gives: values by reference, unpacked anew each time, and how often."""

    def __init__(self):
        self.packed, self.unpacked = {}, 0

    def put(self, value):
        reference = f"reference {len(self.packed)}"
        self.packed[reference] = pickle.dumps(value)
        return ObjectHandle(reference, shared=True)

    def get(self, reference):
        self.unpacked += 1
        return pickle.loads(self.packed[reference])


@pytest.fixture
def store(monkeypatch):
    found = Store()
    monkeypatch.setattr(objects.ray, "get", found.get)
    monkeypatch.setattr(objects, "_kept", type(objects._kept)())
    return found


def test_a_process_unpacks_a_shared_value_once_and_keeps_the_last_few(store):
    handles = [store.put([number]) for number in range(KEPT + 1)]
    first = [handle.get() for handle in handles]
    assert all(
        handle.get() is value for handle, value in list(zip(handles, first, strict=True))[1:]
    )
    assert store.unpacked == len(handles)
    assert handles[0].get() == [0] and store.unpacked == len(handles) + 1


def test_a_call_at_a_million_tiles_takes_less_than_a_millisecond(store, monkeypatch):
    """Packed, unpacked, its plan found, and the digest that stands in receipts."""
    draft = draft_of((128_000, 128_000), tile=128)
    plan = plan_of(draft, np.zeros(draft.grid.tiles, np.int64))
    assert plan.routes.size == 1_000_000
    monkeypatch.delattr(stored, "digest_of")
    handle = store.put(plan)

    def call(shard):
        began = time.perf_counter()
        task = pickle.loads(
            pickle.dumps(FinishShard(handle, SOURCE.in_place, "/out/a.zarr", shard))
        )
        assert task.plan.get().digest == plan.digest
        return time.perf_counter() - began

    call((0, 0))
    assert statistics.median(call((0, column)) for column in range(100)) < 0.001
    assert store.unpacked == 1
