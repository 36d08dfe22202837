"""Shards under way: a passing failure is tried again, a lasting one is told in one sentence."""

from concurrent.futures import Future

import pytest
from tierscale.pipeline.run.tasks import TRIES, Flight

from tierscale.pipeline.errors import Damaged, Full
from tierscale.pipeline.run.shards import Quarantined


class Scripted:
    """A pool whose calls end as a script says: a value is a result, an exception is raised."""

    width, split, device = 4, False, "cpu"

    def __init__(self, ends):
        self.ends, self.calls = iter(ends), []

    def submit(self, *call, kind="light", as_reference=False):
        self.calls.append((kind, *call))
        future = Future()
        end = next(self.ends)
        future.set_exception(end) if isinstance(end, Exception) else future.set_result(end)
        return future


def flown(ends, calls=(("light", "finish"),)):
    pool = Scripted(ends)
    flight = Flight(pool, lambda key: list(calls), "/out/a.zarr")
    flight.launch((0, 1, 2))
    results = []
    while len(flight):
        results.extend(flight.landed())
    return results, pool.calls


def test_a_passing_failure_is_tried_again():
    assert flown([RuntimeError("lost"), "receipt"]) == (["receipt"], [("light", "finish")] * 2)


def test_a_chain_begins_anew_when_its_second_call_fails():
    calls = (("full", "enlarge", 7), ("light", "finish"))
    results, made = flown(["pieces", RuntimeError("lost"), "pieces", "receipt"], calls)
    assert results == ["receipt"] and made[1] == ("light", "finish", "pieces") and len(made) == 4


def test_a_lasting_failure_is_one_sentence_with_image_shard_cause_and_advice():
    with pytest.raises(Quarantined) as error:
        flown([RuntimeError("the actor died\nwith a long story")] * TRIES)
    wanted = (
        "/out/a.zarr level 0 shard 1.2 failed 3 times (the last time RuntimeError: the actor died"
        " with a long story); give the same"
    )
    assert str(error.value).startswith(wanted) and len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("error", [Damaged("the source is cut short"), Full("the disk is full")])
def test_what_will_not_get_better_is_not_tried_again(error):
    with pytest.raises(type(error), match=str(error)):
        flown([error, "receipt"])
