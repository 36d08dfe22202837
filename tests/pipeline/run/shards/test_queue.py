"""Shards under way: a passing failure is tried again, a lasting one is told in one sentence."""

import threading
from concurrent.futures import Future
from dataclasses import dataclass

import pytest

from tierscale.pipeline.errors import Damaged, DiskFull
from tierscale.pipeline.run.shards.opinions import Attempt
from tierscale.pipeline.run.shards.queue import TRIES, Quarantined, ShardQueue, Step

KEY = (0, 1, 2)


@dataclass(frozen=True)
class Named:
    """A task that is known by its name and by what it was made of."""

    name: str
    made: object = None


class Scripted:
    """A pool whose calls end as a script says: a value is a result, an exception is raised."""

    width, split, device = 4, False, "cpu"

    def __init__(self, ends):
        self.ends, self.calls = iter(ends), []

    def submit(self, task, kind="light", as_reference=False):
        self.calls.append((kind, task, as_reference))
        future = Future()
        end = next(self.ends)
        future.set_exception(end) if isinstance(end, Exception) else future.set_result(end)
        return future


class Trusting:
    """Takes what a worker makes for right."""

    output = "/out/a.zarr"

    def first(self, key):
        return Attempt()

    def again(self, receipt, attempt):
        return None

    def suspects(self):
        return []


FINISH = Step("light", lambda made: Named("finish", made))
ENLARGE = Step("full", lambda made: Named("enlarge", made))


def run(ends, steps=(FINISH,), keys=(KEY,), stop=None):
    pool = Scripted(ends)
    stop = stop or threading.Event()
    queue = ShardQueue(keys, lambda key, attempt: steps, Trusting(), stop)
    return list(queue.run(pool)), pool.calls


def test_a_passing_failure_is_tried_again():
    receipts, calls = run([RuntimeError("lost"), "receipt"])
    assert receipts == ["receipt"] and calls == [("light", Named("finish"), False)] * 2


def test_a_chain_hands_on_what_was_made_and_begins_anew_when_its_second_step_fails():
    ends = ["pieces", RuntimeError("lost"), "pieces again", "receipt"]
    receipts, calls = run(ends, (ENLARGE, FINISH))
    assert receipts == ["receipt"]
    assert calls == [
        ("full", Named("enlarge"), True),
        ("light", Named("finish", "pieces"), False),
        ("full", Named("enlarge"), True),
        ("light", Named("finish", "pieces again"), False),
    ]


def test_a_lasting_failure_is_one_sentence_with_image_shard_cause_and_advice():
    with pytest.raises(Quarantined) as error:
        run([RuntimeError("the actor died\nwith a long story")] * TRIES)
    wanted = (
        "/out/a.zarr level 0 shard 1.2 failed 3 times (the last time RuntimeError: the actor died"
        " with a long story); run the same command to resume"
    )
    assert str(error.value).startswith(wanted) and len(str(error.value).splitlines()) == 1


def test_each_shard_has_its_own_tries():
    keys = [(0, 0, index) for index in range(3)]
    ends = [RuntimeError("lost")] * 3 * (TRIES - 1) + ["a", "b", "c"]
    assert sorted(run(ends, keys=keys)[0]) == ["a", "b", "c"]


@pytest.mark.parametrize(
    "error", [Damaged("the source is cut short"), DiskFull("the disk is full")]
)
def test_what_will_not_get_better_is_not_tried_again(error):
    with pytest.raises(type(error), match=str(error)):
        run([error, "receipt"])


def test_once_stopped_no_shard_is_begun_and_those_under_way_are_finished():
    stop = threading.Event()

    def chain(key, attempt):
        if key == (0, 0, 1):
            stop.set()
        return (ENLARGE, FINISH)

    pool = Scripted(["pieces", "pieces", "receipt", "receipt"])
    queue = ShardQueue([(0, 0, index) for index in range(9)], chain, Trusting(), stop)
    assert list(queue.run(pool)) == ["receipt", "receipt"]
    assert len(pool.calls) == 4
