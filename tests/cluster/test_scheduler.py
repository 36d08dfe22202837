"""Calls whose actors die, hang or are slow: repeated elsewhere, or given up in one sentence."""

import gc
import time
from dataclasses import dataclass

import pytest
import ray

from tierscale.cluster import actor_group, scheduler, stragglers
from tierscale.cluster.actor_group import wait_until_up
from tierscale.cluster.in_flight import Call, CallInFlight
from tierscale.cluster.scheduler import TRIES, Scheduler
from tierscale.cluster.session import session
from tierscale.cluster.sizing import PoolSpec
from tierscale.pipeline.errors import Damaged, Refused
from tierscale.pipeline.geometry.grid import Span
from tierscale.pipeline.plan.options import Selection
from tierscale.pipeline.run.shards.queue import Quarantined
from tierscale.pipeline.run.workers.pool import Others
from tierscale.pipeline.run.workers.prescan_tasks import CheckReady, IngestSource
from tierscale.pipeline.run.workers.shard_tasks import FinishShard, HalveShards

NOW = 1000.0


class Group(actor_group.ActorGroup):
    """A group without Ray, whose actors never come up by themselves."""

    def start(self, count):
        self.replaced = []
        self.killed = False

    def replace(self, actor, error):
        self.replaced.append(actor)
        return True

    def kill(self):
        self.killed = True


FINISH = FinishShard(None, None, "out.zarr", (0, 1))
INGEST = IngestSource("in.jpg", Selection(), "copy.zarr", None)


def scheduler_with(*seconds, tries=2, task=FINISH):
    """A scheduler with one call in flight on as many actors, each at work for so many seconds.

    None: the call waits behind another.
    """
    group = Group("light", PoolSpec(1))
    found = Scheduler({"light": group})
    found.timer.record("FinishShard", 1.0)
    call = Call(task, "light", False, tries=tries)
    entries = []
    for actor, at_work in enumerate(seconds):
        began = None if at_work is None else NOW - at_work
        entries.append(CallInFlight(call, "light", actor, None, began))
        found.in_flight.add(f"reference {actor}", entries[-1])
        group.up[actor] = 1
    return found, group, call, entries


def test_an_actor_that_the_memory_monitor_ended_is_replaced_and_its_calls_are_repeated(monkeypatch):
    """Its error is none of a dead actor; an actor that were kept would fail every further call."""
    found, group, call, _ = scheduler_with(0.0)
    behind = Call(FINISH, "light", False, tries=1)
    found.in_flight.add("behind", CallInFlight(behind, "light", 0, None, None))

    def killed(reference):
        raise ray.exceptions.OutOfMemoryError("2 workers were killed: the node ran low on memory")

    monkeypatch.setattr(scheduler.ray, "get", killed)
    found.collect("reference 0")
    assert group.replaced == [0] and not found.in_flight
    assert set(map(id, found.waiting["light"])) == {id(call), id(behind)}
    assert not call.future.done() and not behind.future.done()


def test_a_copy_has_more_time_than_the_call_had():
    for copy in (119.0, None):
        found, group, call, entries = scheduler_with(300.0, copy)
        found.on_late(entries[0], NOW)
        assert not group.replaced and not found.waiting["light"] and not call.future.done()
    found, group, call, entries = scheduler_with(300.0, 121.0)
    found.on_late(entries[0], NOW)
    assert group.replaced == [0, 1] and list(found.waiting["light"]) == [call]
    assert not found.in_flight and not call.future.done()


def test_a_call_that_hangs_wherever_it_is_started_is_given_up():
    found, group, call, entries = scheduler_with(900.0, 481.0, tries=TRIES)
    found.on_late(entries[1], NOW)
    assert group.replaced == [0, 1] and not found.waiting["light"]
    sentence = (
        r"FinishShard\('out.zarr', \(0, 1\)\) was started 4 times .* within 480 s;"
        r" .*TIERSCALE_LATE_SECONDS=60"
    )
    with pytest.raises(Quarantined, match=sentence):
        call.future.result()


def test_each_try_has_twice_the_time_up_to_that_of_a_first_call():
    timer = stragglers.StragglerTimer()

    def limit(tries):
        return timer.limit(Call(FINISH, "light", False, tries=tries))

    assert limit(1) == 900
    timer.record("FinishShard", 1.0)
    assert [limit(tries) for tries in (1, 2, 3, 4, 9)] == [60, 120, 240, 480, 900]


def test_a_file_whose_decoding_takes_too_long_is_given_up_at_once():
    found, group, call, entries = scheduler_with(4000.0, tries=1, task=INGEST)
    found.on_late(entries[0], NOW)
    assert group.replaced == [0] and not found.waiting["light"]
    with pytest.raises(Damaged, match=r"in\.jpg: decoding took more than 4000 s"):
        call.future.result()


def test_a_call_that_ended_elsewhere_ends_no_worker():
    found, group, call, entries = scheduler_with(300.0, 300.0)
    call.settle("done")
    found.on_late(entries[0], NOW)
    assert not group.replaced and not found.waiting["light"]


def test_a_call_that_was_never_started_loses_no_try():
    found, _, _, entries = scheduler_with(900.0, 481.0, tries=TRIES)
    behind = Call(HalveShards(None, "out.zarr", 1, (0, 0)), "light", False, tries=1)
    found.in_flight.add("behind", CallInFlight(behind, "light", 1, None, None))
    found.on_late(entries[0], NOW)
    assert list(found.waiting["light"]) == [behind] and behind.tries == 0


def test_a_late_call_is_started_elsewhere_and_its_actor_gets_nothing_more():
    found, group, call, entries = scheduler_with(300.0, tries=1)
    group.up[7] = 0
    found.on_late(entries[0], NOW)
    assert list(found.waiting["light"]) == [call] and not group.replaced
    assert group.suspects == {0} and group.free() == 7


@pytest.mark.parametrize("grows", [True, False])
def test_actors_without_room_are_not_waited_for_where_nodes_come_and_go(monkeypatch, caplog, grows):
    monkeypatch.setattr(actor_group, "JOIN_SECONDS", 0.2)
    monkeypatch.setattr(actor_group, "START_SECONDS", 0.4)
    monkeypatch.setattr(
        ray, "wait", lambda refs, num_returns, timeout: time.sleep(timeout) or ([], refs)
    )
    monkeypatch.setattr(ray, "available_resources", lambda: {"CPU": 1.0})
    group = Group("light", PoolSpec(2, grows=grows))
    group.up["early"], group.starting["ready"] = 0, "late"
    if grows:
        wait_until_up([group])
        assert "1 of 2 workers are up" in caplog.text
    else:
        with pytest.raises(Refused, match="1 of 2 workers did not start"):
            wait_until_up([group])


class Named(Group):
    """A group of two actors that are up, of which calls and ends are noted."""

    def __init__(self, names):
        super().__init__("light", PoolSpec(len(names)))
        self.up = dict.fromkeys(range(len(names)), 0)
        self.names = dict(enumerate(names))
        self.begun = 0

    def start(self, count):
        self.begun = getattr(self, "begun", 0) + count


@pytest.fixture
def killed(monkeypatch):
    found = []
    monkeypatch.setattr(actor_group.ray, "kill", found.append)
    return found


def assigned(found, *calls):
    """Which actor each call is given to, by starting them all."""
    started = {}
    found._start = lambda call, kind, actor: started.update({id(call): actor})
    found.waiting["light"].extend(calls)
    found._start_waiting()
    return [started.get(id(call)) for call in calls]


def test_a_second_opinion_is_given_to_another_worker(killed):
    group = Named(["a", "b"])
    found = Scheduler({"light": group})
    second = Call(FINISH, "light", False, Others(frozenset("a")))
    plain = Call(FINISH, "light", False)
    assert assigned(found, second, plain) == [1, 0] and not killed
    # Where the others are busy it waits, and holds up nobody.
    group.up = {0: 0, 1: actor_group.CALLS_PER_ACTOR}
    second, plain = (
        Call(FINISH, "light", False, Others(frozenset("a"))),
        Call(FINISH, "light", False),
    )
    assert assigned(found, second, plain) == [None, 0]
    assert list(found.waiting["light"]) == [second] and not killed and not group.begun


def test_where_there_is_one_worker_alone_it_gives_the_second_opinion_but_no_third(killed):
    group = Named(["a"])
    found = Scheduler({"light": group})
    assert assigned(found, Call(FINISH, "light", False, Others(frozenset("a")))) == [0]
    third = Call(FINISH, "light", False, Others(frozenset("a"), strictly=True))
    assert assigned(found, third) == [None]
    assert killed == [0] and group.begun == 1 and group.up == {}
    group.up, group.names = {7: 0}, {7: "new"}
    assert assigned(found) == [] and not found.waiting["light"], "the new one takes it"


def test_workers_of_another_kind_are_others_too(killed):
    groups = {"full": Named(["a"]), "light": Named(["b", "c"])}
    found = Scheduler(groups)
    started = []
    found._start = lambda call, kind, actor: started.append((kind, actor))
    found.waiting["full"].append(Call(FINISH, "full", False, Others(frozenset("ab"))))
    found._start_waiting()
    assert started == [("light", 1)] and not killed


def test_a_worker_that_is_outvoted_is_ended_and_its_calls_go_to_others(killed):
    group = Named(["a", "b"])
    found = Scheduler({"light": group})
    call = Call(FINISH, "light", False, tries=1)
    found.in_flight.add("reference", CallInFlight(call, "light", 0, None, NOW))
    found.put("a")
    found._receive(block=False)
    assert killed == [0] and group.names == {1: "b"} and list(found.waiting["light"]) == [call]
    assert group.begun == 0, "a new one would come up on the same card"
    found.put("b")
    found.put("nobody")
    found._receive(block=True)
    found._receive(block=False)
    assert killed == [0, 1] and group.begun == 1, "but for the last one"


@pytest.mark.slow
def test_opinions_and_dismissals_on_ray():
    """Others do a task by name; a new one, where all are out of the question; none that ended."""

    @dataclass(frozen=True)
    class Who:
        rows: Span

        def run(self, worker):
            return worker.name

    def who(pool, *names, strictly=False):
        others = Others(frozenset(names), strictly)
        return pool.submit(Who(Span(3, 5)), others=others).result(timeout=240)

    with session("local", "together", "cpu", 2) as pool:
        first = who(pool)
        second = who(pool, first)
        assert first != second and who(pool, first, second) in (first, second)
        third = who(pool, first, second, strictly=True)
        assert third not in (first, second)
        pool.dismiss(third)
        left = {who(pool) for _ in range(8)}
        assert third not in left and pool.width == 1


@pytest.fixture
def hurried(monkeypatch):
    """Calls are late after a second and a half."""
    monkeypatch.setattr(stragglers, "LATE_SECONDS", 1.5)
    monkeypatch.setattr(stragglers, "FIRST_SECONDS", 1.5)


def sleeping(seconds):
    """A task that keeps a worker busy for so long.

    cloudpickle takes a class that was made in a function along by value.
    """

    @dataclass(frozen=True)
    class Sleep:
        rows: Span

        def run(self, worker):
            time.sleep(seconds)
            return "done"

    return Sleep(Span(3, 5))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("workers", [1, 2])
def test_a_pool_goes_on_beside_a_call_that_hangs(hurried, workers):
    with session("local", "together", "cpu", workers) as pool:
        began = time.monotonic()
        hanging = pool.submit(sleeping(1e6))
        others = [pool.submit(CheckReady()) for _ in range(6)]
        sentence = (
            r"Sleep\(Span\(start=3, stop=5\)\) was started 4 times and did not end, .* within 2 s;"
        )
        with pytest.raises(Quarantined, match=sentence):
            hanging.result(timeout=240)
        assert time.monotonic() - began >= (TRIES if workers == 1 else TRIES / 2) * 1.5
        assert all(other.result(timeout=120) for other in [*others, pool.submit(CheckReady())])


@pytest.mark.slow
def test_a_slow_call_is_started_twice_and_its_workers_live(hurried, caplog):
    with session("local", "together", "cpu", 2) as pool:
        assert pool.submit(sleeping(2.5)).result(timeout=60) == "done"
        assert "started elsewhere too" in caplog.text
        assert "died" not in caplog.text and "hangs" not in caplog.text


def failing():
    """A task that its worker refuses."""

    @dataclass(frozen=True)
    class Fail:
        def run(self, worker):
            raise Refused("the weights were replaced")

    return Fail()


@pytest.mark.slow
def test_a_failed_call_leaves_no_traceback_on_the_terminal(caplog):
    """Of a call with a large result, Ray holds the error twice, and prints what nobody takes."""
    with session("local", "together", "cpu", 1) as pool:
        for _ in range(3):
            failed = pool.submit(failing(), as_reference=True)
            with pytest.raises(Refused, match="weights were replaced"):
                failed.result(timeout=60)
        assert pool.submit(CheckReady()).result(timeout=60)
        gc.collect()
        time.sleep(1)
    assert "Unhandled" not in caplog.text
