"""What a night finds: an output that is missing is work, and outputs that all are, are not."""

import shutil
import threading

import pytest

from tierscale.pipeline.dataset.night.ledger import Ledger
from tierscale.pipeline.dataset.night.survey import survey, unmounted
from tierscale.pipeline.dataset.night.task import ArchiveTask
from tierscale.pipeline.dataset.results import ImageResult
from tierscale.pipeline.errors import Interrupted

RESULT = ImageResult("p1", 3, 8, 8, {"bicubic": 1}, 5.0, 0.5, 1.0)
# Long after the sources were written, so that their times tell whether they were changed.
NIGHT, EVENING, DEADLINE = "2096-11-22", 4e9, 4.1e9
NAMES = ("1.png", "2.png", "a/3.png", "a/4.png")


@pytest.fixture
def places(tmp_path):
    for name in NAMES:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(name.encode())
    return tmp_path


@pytest.fixture
def ledger(places):
    with Ledger(str(places / "l.db"), lambda: EVENING) as made:
        yield made


def look(places, ledger, output="out", overwrite=False):
    task = ArchiveTask(str(places / "in"), str(places / output), overwrite=overwrite)
    found = survey(task, ledger, threading.Event(), DEADLINE)
    return found, task.output_paths().of


def finish(places, ledger, output="out"):
    """Everything is enlarged, as far as the ledger knows, and the outputs lie there."""
    _, output_of = look(places, ledger, output)
    while entry := ledger.claim(NIGHT, "{}", output_of):
        ledger.record_done(entry.source, RESULT, "s")
        for path in (entry.output, f"{entry.output}.tierscale"):
            (places / path).mkdir(parents=True)


def states(places, ledger):
    rows = ledger.do("SELECT source, state FROM sources ORDER BY source")
    return {row["source"].removeprefix(f"{places}/in/"): row["state"] for row in rows}


def test_a_single_output_that_is_gone_is_work(places, ledger):
    finish(places, ledger)
    shutil.rmtree(places / "out/a/3.png.zarr")
    found, _ = look(places, ledger)
    assert not found.closed and not found.problems
    assert states(places, ledger) == dict.fromkeys(NAMES, "done") | {"a/3.png": "pending"}


def test_outputs_that_are_all_gone_are_no_work(places, ledger):
    finish(places, ledger)
    shutil.rmtree(places / "out")
    for mount_point in (False, True):
        if mount_point:
            (places / "out/lost+found").mkdir(parents=True)
        found, _ = look(places, ledger)
        assert found.closed and states(places, ledger) == dict.fromkeys(NAMES, "done")
        (text,) = found.problems
        assert f"none of the 4 outputs that are known lies in {places}/out any more" in text
        assert "check whether its disk is mounted, or give --overwrite" in text
    found, _ = look(places, ledger, overwrite=True)
    assert not found.closed and states(places, ledger) == dict.fromkeys(NAMES, "pending")


def test_a_folder_of_outputs_that_is_empty_is_no_work_and_the_rest_is(places, ledger):
    finish(places, ledger)
    for name in ("1.png.zarr", "a"):
        shutil.rmtree(places / "out" / name)
    (places / "out/a").mkdir()
    (places / "in/a/new.png").write_bytes(b"new")
    found, output_of = look(places, ledger)
    assert not found.closed and [f"{places}/out/a any more" in text for text in found.problems] == [
        True
    ]
    assert ledger.claim(NIGHT, "{}", output_of).source.endswith("/1.png")
    assert ledger.claim(NIGHT, "{}", output_of) is None, "nothing is written below the mount point"
    assert states(places, ledger)["a/3.png"] == "done"


def test_another_place_is_filled(places, ledger):
    finish(places, ledger)
    shutil.rmtree(places / "out")
    found, _ = look(places, ledger, output="other")
    assert not found.closed and states(places, ledger) == dict.fromkeys(NAMES, "pending")


def test_an_archive_that_cannot_be_listed_is_one_problem(places, ledger, monkeypatch):
    finish(places, ledger)

    def listing(root, problem):
        problem("the archive cannot be listed")
        return iter(())

    monkeypatch.setattr("tierscale.pipeline.dataset.night.survey.scan", listing)
    assert look(places, ledger)[0].problems == ("the archive cannot be listed",)


def test_a_survey_can_be_stopped(places, ledger):
    stop = threading.Event()
    stop.set()
    with pytest.raises(Interrupted):
        survey(ArchiveTask(str(places / "in"), str(places / "out")), ledger, stop, DEADLINE)


@pytest.mark.parametrize(
    ("missing", "empty", "found"),
    [
        ([], [], []),
        (["a/1"], [], []),
        (["a/1", "a/2"], [], []),
        (["a/1"], ["a"], []),
        (["a/1", "a/2", "a/b/1"], ["a/b"], []),
        (["a/1", "a/2", "a/b/1"], ["a"], [("a", 3)]),
        (["c/1"], ["c"], []),
        (["a/1", "a/2", "a/b/1", "c/1"], [], [("", 4)]),
    ],
)
def test_a_mount_point_is_an_empty_folder_of_which_all_is_gone(tmp_path, missing, empty, found):
    root = str(tmp_path / "out")
    known = [f"{root}/{name}" for name in ("a/1", "a/2", "a/b/1", "c/1")]
    for name in empty:
        (tmp_path / "out" / name).mkdir(parents=True)
    gone = {f"{root}/{name}" for name in missing}
    assert unmounted(root, known, gone) == [
        (f"{root}/{name}" if name else root, count) for name, count in found
    ]


def test_a_single_output_and_outputs_in_a_bucket():
    assert unmounted("/out", ["/out/1"], {"/out/1"}) == []
    known = [f"s3://b/out/{name}" for name in ("a/1", "a/2", "c")]
    assert unmounted("s3://b/out", known, set(known)) == [("s3://b/out", 3)]
    assert unmounted("s3://b/out", known, set(known[:2])) == []
