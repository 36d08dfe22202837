"""The one runner: an outcome for every job, whatever happens to the others."""

import threading
from dataclasses import replace

import pytest

from tests.plans import SOURCE, draft_of, plan_of
from tierscale.pipeline.dataset import runner
from tierscale.pipeline.dataset.results import RESULT, ImageResult, ResultRow, result_table
from tierscale.pipeline.dataset.runner import (
    Cause,
    Enlarged,
    NotEnlarged,
    QueuedJob,
    enlarge,
    run_jobs,
)
from tierscale.pipeline.errors import Damaged, Full, Held, Interrupted, Refused
from tierscale.pipeline.output.summary import Summary
from tierscale.pipeline.run.job import Controls, ImageJob
from tierscale.pipeline.run.shards import Quarantined

SUMMARY = Summary(
    status="done",
    output="/out/1.zarr",
    plan="p1",
    shape=(3, 40, 60),
    dtype="uint8",
    scale="4",
    tiles={"bicubic": 4, "carn-x4": 2},
    cost=5.0,
    cost_share=0.5,
    seconds={"total": 1.5},
    shards=3,
    done_before=0,
    written=3,
    notes=(),
)
SKIPPED = replace(SUMMARY, done_before=3, written=0)


def job(key):
    return QueuedJob(key, ImageJob(f"/in/{key}.png", f"/out/{key}.zarr"))


def test_each_job_has_an_outcome_and_a_fault_stops_no_other():
    def perform(one):
        if one.key % 3 == 1:
            raise Refused(f"image {one.key} is no image")
        return Enlarged(SUMMARY if one.key else SKIPPED)

    outcomes = dict(run_jobs(map(job, range(7)), perform, 3, threading.Event()))
    assert sorted(outcomes) == list(range(7))
    assert outcomes[4] == NotEnlarged("failed", "image 4 is no image", Cause.IMAGE)
    assert (outcomes[0].status, outcomes[2].status) == ("skipped", "done")


def test_after_stop_no_job_is_begun_and_none_is_taken_from_the_queue():
    stop, begun = threading.Event(), []

    def perform(one):
        begun.append(one.key)
        stop.set()
        return Enlarged(SUMMARY)

    queue = map(job, range(100))
    assert [key for key, _ in run_jobs(queue, perform, 1, stop)] == begun == [0]
    assert next(queue).key == 1


@pytest.mark.parametrize(
    ("error", "status", "cause", "text"),
    [
        (Interrupted(), "interrupted", Cause.INTERRUPTED, "to resume, run the same command"),
        (Held("process 1 writes it"), "left", Cause.HELD, "process 1 writes it"),
        (Full("the disk is full"), "failed", Cause.FULL, "the disk is full"),
        (Quarantined("failed 3 times"), "quarantined", Cause.IMAGE, "failed 3 times"),
        (Refused("no image"), "failed", Cause.IMAGE, "no image"),
        (Damaged("cut short"), "failed", Cause.IMAGE, "cut short"),
        (KeyError("a\nb"), "failed", Cause.UNEXPECTED, r"KeyError: 'a\\nb'"),
        (OSError("two\n lines"), "failed", Cause.UNEXPECTED, "OSError: two lines"),
    ],
)
def test_what_an_exception_says_of_the_image(error, status, cause, text):
    outcome = NotEnlarged.of(error)
    assert (outcome.status, outcome.cause) == (status, cause)
    assert outcome.error.endswith(text.replace("\\\\", "\\"))


@pytest.mark.parametrize("identity", [{"format": "png", "sha256": "ab"}, {"format": "zarr"}])
def test_an_image_that_is_enlarged_tells_its_plan_and_its_sources_checksum(monkeypatch, identity):
    plan = plan_of(draft_of(source=replace(SOURCE, identity=identity)))
    seen: list[object] = []
    lent = Controls(on_plan=seen.append)

    def upscale_image(image, pool, controls):
        assert (image, pool, controls.stop) == (job("a").image, "pool", lent.stop)
        controls.on_plan(plan)
        return SUMMARY

    monkeypatch.setattr(runner, "upscale_image", upscale_image)
    assert enlarge(job("a").image, "pool", lent) == Enlarged(SUMMARY, identity.get("sha256"))
    assert seen == [plan]


def test_the_result_table_has_a_row_for_each_outcome():
    rows = [
        ResultRow.of(job(3), NotEnlarged.of(Interrupted())),
        ResultRow.of(job(2), NotEnlarged.of(Quarantined("failed 3 times"))),
        ResultRow.of(job(1), Enlarged(SKIPPED)),
    ]
    table = result_table(rows)
    assert table.schema.equals(RESULT)
    first, second, third = table.to_pylist()
    assert first == {
        "row": 1,
        "source": "/in/1.png",
        "output": "/out/1.zarr",
        "status": "skipped",
        "height": 40,
        "width": 60,
        "channels": 3,
        "tiles": [("bicubic", 4), ("carn-x4", 2)],
        "cost": 5.0,
        "cost_share": 0.5,
        "seconds": 1.5,
        "error": None,
    }
    assert (second["status"], second["error"]) == ("quarantined", "failed 3 times")
    assert third["status"] == "failed" and third["error"].startswith("interrupted")
    assert third["tiles"] == [] and third["height"] is None


def test_addresses_in_results_hold_no_secret():
    image = ImageResult.from_summary(SUMMARY)
    record = ResultRow(1, "s3://key:secret@b/a.tif", "s3://b/a.zarr?sig=x", "done", image)
    assert "secret" not in str(record.to_record())
