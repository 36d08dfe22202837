"""What becomes of the pending images of a ledger, without networks: runs are stand-ins."""

import json
import threading
from dataclasses import dataclass
from typing import ClassVar

import pytest

from tests.pipeline.dataset.test_runner import SUMMARY
from tierscale.pipeline.dataset import archive_run
from tierscale.pipeline.dataset.archive_run import (
    ArchiveRun,
    ArchiveTask,
    ledger_text,
    update_ledger,
)
from tierscale.pipeline.dataset.ledger import Ledger
from tierscale.pipeline.dataset.runner import Enlarged
from tierscale.pipeline.errors import Damaged, Interrupted
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.plan.policies import KINDS, Adaptive, Budget, MaxLoss

# Long after the sources were written, so that their times tell whether they were changed.
NIGHT, EVENING, DEADLINE = "2096-11-22", 4e9, 4.1e9


class Pool:
    """No workers: the stand-in for a run does not ask them."""

    width, split, device = 1, False, "cpu"


@pytest.fixture
def task(tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(5):
        (tmp_path / f"in/{number}.png").write_bytes(bytes(10 + number))
    return ArchiveTask(str(tmp_path / "in/"), f"file://{tmp_path}/out", Options())


@pytest.fixture
def ledger(tmp_path):
    with Ledger(str(tmp_path / "l.db"), lambda: EVENING) as made:
        yield made


def begin(task, ledger, stop=None):
    changes = update_ledger(task, ledger, stop or threading.Event(), DEADLINE, [])
    ledger.begin_night(NIGHT)
    return changes


def states(ledger):
    rows = ledger.do("SELECT state FROM sources ORDER BY source")
    return [row["state"] for row in rows]


def test_roots_are_normalized(task, tmp_path):
    assert (task.archive, task.output) == (str(tmp_path / "in"), str(tmp_path / "out"))
    assert task.output_paths().of(f"{task.archive}/a/b.png") == f"{task.output}/a/b.png.zarr"


def test_another_number_of_a_policy_is_another_text_in_the_ledger(monkeypatch):
    @dataclass(frozen=True)
    class Later:
        """A policy that version 0.1 did not know."""

        name: ClassVar[str] = "later"
        number: float

    monkeypatch.setitem(KINDS, Later.name, Later)
    policies = (Adaptive(), Budget(0.3), Budget(0.4), MaxLoss(0.3), Later(0.3), Later(0.4))
    texts = [ledger_text(Options(policy=policy)) for policy in policies]
    assert len(set(texts)) == len(policies)


def test_the_texts_of_version_0_1_stay():
    plain = json.loads(ledger_text(Options()))
    numbers = {name: plain[name] for name in ("budget", "threshold", "lose", "deadline")}
    assert numbers == dict.fromkeys(numbers) and plain["policy"] == "adaptive"
    lossy = json.loads(ledger_text(Options(policy=MaxLoss(0.02))))
    assert lossy == {**plain, "policy": "quality", "lose": 0.02}


def test_every_pending_image_is_enlarged_and_reported(task, ledger, monkeypatch):
    assert begin(task, ledger).new == 5
    monkeypatch.setattr(archive_run, "enlarge", lambda *job: Enlarged(SUMMARY, "s"))
    steps = []
    run = ArchiveRun(task, ledger, Pool(), threading.Event(), pytest.fail)
    run.work(NIGHT, DEADLINE, lambda *progress: steps.append(progress))
    assert states(ledger) == ["done"] * 5 and steps[-1] == ("images", 5, 5)
    assert begin(task, ledger).untouched == 5 and states(ledger) == ["pending"] * 5, (
        "no output is there"
    )


def test_a_ledger_that_fails_ends_the_run_and_what_is_under_way_drains(task, ledger, monkeypatch):
    begin(task, ledger)
    stop, drained = threading.Event(), []

    def slow(job, *lent):
        if job.source.endswith("0.png"):
            return Enlarged(SUMMARY, "s")
        drained.append(stop.wait(20))
        raise Interrupted

    def full(*arguments):
        raise Damaged("l.db cannot be written")

    monkeypatch.setattr(archive_run, "enlarge", slow)
    monkeypatch.setattr(ledger, "record_done", full)
    with pytest.raises(Damaged, match="cannot be written"):
        ArchiveRun(task, ledger, Pool(), stop, pytest.fail).work(NIGHT, DEADLINE, lambda *_: None)
    assert stop.is_set() and drained == [True]
    with ledger.lease(lambda: None):
        assert states(ledger).count("pending") == 5, "what was claimed waits for another night"


def test_a_plan_is_on_record_before_its_run_ends(task, ledger, monkeypatch):
    """What a killed process leaves is then known as ours."""
    begin(task, ledger)
    seen = []

    class Plan:
        digest = "p7"

    def fail_after_planning(job, pool, controls):
        controls.on_plan(Plan())
        raise Damaged(f"{job.source} is cut short")

    monkeypatch.setattr(archive_run, "enlarge", fail_after_planning)
    ArchiveRun(task, ledger, Pool(), threading.Event(), seen.append).work(
        NIGHT, DEADLINE, lambda *_: None
    )
    assert states(ledger) == ["failed"] * 5 and len(seen) == 5
    assert {row["plan"] for row in ledger.do("SELECT plan FROM sources")} == {"p7"}


def test_a_stopped_listing_leaves_the_ledger_alone(task, ledger):
    stop = threading.Event()
    stop.set()
    with pytest.raises(Interrupted):
        begin(task, ledger, stop)
    assert states(ledger) == []
