"""What becomes of the pending images of a ledger, without networks: runs are stand-ins."""

import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.pipeline.dataset.test_runner import SUMMARY
from tierscale.pipeline.dataset.night import archive_run
from tierscale.pipeline.dataset.night.archive_run import ArchiveRun, probe_output
from tierscale.pipeline.dataset.night.ledger import Ledger
from tierscale.pipeline.dataset.night.settling import Settling
from tierscale.pipeline.dataset.night.survey import survey
from tierscale.pipeline.dataset.night.task import ArchiveTask
from tierscale.pipeline.dataset.runner import Enlarged
from tierscale.pipeline.errors import Damaged, Interrupted, Refused, Unreachable
from tierscale.pipeline.plan.options import Options

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
    found = survey(task, ledger, stop or threading.Event(), DEADLINE)
    ledger.begin_night(NIGHT)
    return found.changes


def states(ledger):
    rows = ledger.do("SELECT state FROM sources ORDER BY source")
    return [row["state"] for row in rows]


def test_every_pending_image_is_enlarged_and_reported(task, ledger, monkeypatch):
    assert begin(task, ledger).new == 5
    monkeypatch.setattr(archive_run, "enlarge", lambda *job: Enlarged(SUMMARY, "s"))
    steps = []
    run = ArchiveRun(task, ledger, Pool(), threading.Event(), pytest.fail)
    run.work(NIGHT, DEADLINE, lambda *progress: steps.append(progress))
    assert states(ledger) == ["done"] * 5 and steps[-1] == ("images", 5, 5)
    assert begin(task, ledger).untouched == 5 and states(ledger) == ["done"] * 5, (
        "outputs that are all missing are no work"
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


def work(task, ledger, **more):
    """A run of all that is pending; what it reported beside its images."""
    begin(task, ledger)
    run = ArchiveRun(task, ledger, Pool(), threading.Event(), lambda line: None)
    run.work(NIGHT, DEADLINE, lambda *_: None)
    return run


def attempts(ledger):
    return {row["attempts"] for row in ledger.do("SELECT attempts FROM sources")}


def failing(job, *lent):
    raise Refused(f"{job.source}: there is no such file; check the path")


def test_an_archive_that_goes_away_ends_the_run_and_is_nobodys_fault(
    task, ledger, monkeypatch, tmp_path
):
    tried = []

    def goes(job, *lent):
        tried.append(job.source)
        if len(tried) == 2:
            (tmp_path / "in").rename(tmp_path / "away")
            (tmp_path / "in").mkdir()
        return Enlarged(SUMMARY, "s") if len(tried) == 1 else failing(job)

    monkeypatch.setattr(archive_run, "enlarge", goes)
    run = work(task, ledger)
    assert sorted(states(ledger)) == ["done"] + ["pending"] * 4 and attempts(ledger) == {0}
    assert len(tried) <= 1 + Pool.width + 1, "no more than those that were under way"
    (text,) = run.problems
    assert text.startswith(f"the archive {tmp_path}/in is out of reach") and "disk" in text


def test_a_source_that_is_gone_alone_fails_alone(task, ledger, monkeypatch, tmp_path):
    def gone(job, *lent):
        if job.source.endswith("2.png"):
            (tmp_path / "in/2.png").unlink(missing_ok=True)
            failing(job)
        return Enlarged(SUMMARY, "s")

    monkeypatch.setattr(archive_run, "enlarge", gone)
    run = work(task, ledger)
    assert states(ledger) == ["done", "done", "failed", "done", "done"] and not run.problems


def test_a_folder_that_goes_away_is_left_and_the_rest_is_done(task, ledger, monkeypatch, tmp_path):
    for number in range(4):
        (tmp_path / "in/a").mkdir(exist_ok=True)
        (tmp_path / f"in/a/{number}.png").write_bytes(bytes(12))
    tried = []

    def goes(job, *lent):
        if "/a/" not in job.source:
            return Enlarged(SUMMARY, "s")
        tried.append(job.source)
        if len(tried) == 1:
            (tmp_path / "in/a").rename(tmp_path / "away")
        failing(job)

    monkeypatch.setattr(archive_run, "enlarge", goes)
    run = work(task, ledger)
    assert states(ledger) == ["done"] * 5 + ["pending"] * 4 and attempts(ledger) == {0}
    assert len(tried) <= Pool.width + 1 and len(run.problems) == 1
    assert run.problems[0].startswith(f"{tmp_path}/in/a is out of reach")


def test_a_disk_that_fails_for_one_source_only_is_that_sources_fault(task, ledger, monkeypatch):
    """Its first bytes can still be read: they lie in the cache of the system."""

    def fails(job, *lent):
        if job.source.endswith("2.png"):
            raise Unreachable(f"{job.source} cannot be read (Input/output error)")
        return Enlarged(SUMMARY, "s")

    monkeypatch.setattr(archive_run, "enlarge", fails)
    run = work(task, ledger)
    assert states(ledger) == ["done", "done", "failed", "done", "done"] and not run.problems


def test_outputs_that_are_unmounted_end_the_run_and_nothing_is_taken_for_done(
    task, ledger, monkeypatch, tmp_path
):
    made = []

    def unmounts(job, pool, controls):
        (tmp_path / "out").mkdir(exist_ok=True)
        if len(made) == 2:
            (tmp_path / "out").rename(tmp_path / "away")
        made.append(job.output)
        Path(f"{job.output}.tierscale").mkdir(parents=True)
        Path(f"{job.output}.tierscale/plan.json").touch()
        controls.on_plan(SimpleNamespace(digest="p1"))
        return Enlarged(replace(SUMMARY, output=job.output), "s")

    monkeypatch.setattr(archive_run, "enlarge", unmounts)
    run = work(task, ledger)
    done = [Path(output).name for _, output in ledger.done_outputs()]
    assert done and all((tmp_path / f"away/{name}.tierscale").is_dir() for name in done)
    assert len(made) <= 4 and attempts(ledger) == {0}
    assert len(run.problems) == 1 and "is not mounted any more" in run.problems[0]


def test_names_that_the_disk_takes_for_one_have_one_owner(task, ledger, monkeypatch, tmp_path):
    (tmp_path / "in/A.png").write_bytes(bytes(50))
    (tmp_path / "in/a.png").write_bytes(bytes(60))
    monkeypatch.setattr(archive_run, "folds_case", lambda folder: True)
    monkeypatch.setattr(archive_run, "enlarge", lambda *job: Enlarged(SUMMARY, "s"))
    work(task, ledger)
    rows = {row["source"][-5:]: row for row in ledger.do("SELECT * FROM sources")}
    assert rows["A.png"]["state"] == "done" and rows["a.png"]["state"] == "failed"
    assert f"is that of {tmp_path}/in/A.png too" in rows["a.png"]["error"]


def test_what_is_still_being_written_waits_without_an_attempt(task, ledger, monkeypatch, tmp_path):
    """It grows while the run gets to it, or while it is enlarged."""
    task = replace(task, settling=Settling(0.1))

    def grows(job, *lent):
        if job.source.endswith(("0.png", "1.png")):
            (tmp_path / "in/2.png").write_bytes(bytes(100))
        if job.source.endswith("3.png"):
            (tmp_path / "in/3.png").write_bytes(bytes(100))
            raise Damaged(f"{job.source} is cut short")
        return Enlarged(SUMMARY, "s")

    monkeypatch.setattr(archive_run, "enlarge", grows)
    run = work(task, ledger)
    assert states(ledger) == ["done", "done", "pending", "pending", "done"]
    assert attempts(ledger) == {0} and run.unsettled == 2 and not run.problems
    assert ledger.counts(NIGHT)["left"] == 2


def test_a_probe_leaves_nothing_behind(tmp_path):
    probe_output(str(tmp_path / "not/yet"))
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    with pytest.raises((Damaged, Refused)):
        probe_output("/proc/nothing/here")
