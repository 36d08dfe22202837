"""The one runner: an outcome for every job, whatever happens to the others."""

import hashlib
import threading
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tierscale.pipeline.dataset.results import RESULT, ImageResult, ResultRow, result_table
from tierscale.pipeline.dataset.runner import (
    Cause,
    Enlarged,
    NotEnlarged,
    QueuedJob,
    enlarge,
    run_jobs,
)
from tierscale.pipeline.errors import Damaged, DiskFull, Held, Interrupted, Refused
from tierscale.pipeline.output.summary import Summary
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.run.job import Controls, ImageJob
from tierscale.pipeline.run.shards.queue import Quarantined
from tierscale.pipeline.run.workers.pool import LocalPool

SUMMARY = Summary(
    status="done",
    output="/out/1.zarr",
    plan="p1",
    shape=(3, 40, 60),
    dtype="uint8",
    scale="4",
    family=None,
    kind=None,
    tiles={"bicubic": 4, "carn-x4": 2},
    cost=5.0,
    cost_share=0.5,
    seconds={"total": 1.5},
    shards=1,
    done_before=0,
    written=1,
    notes=(),
)


def job(key):
    return QueuedJob(key, ImageJob(f"/in/{key}.png", f"/out/{key}.zarr", Options()))


def test_each_job_has_an_outcome_and_a_fault_stops_no_other():
    def perform(one):
        if one.key % 3 == 1:
            raise Refused(f"image {one.key} is no image")
        return Enlarged(replace(SUMMARY, written=one.key))

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
        (DiskFull("the disk is full"), "failed", Cause.DISK_FULL, "the disk is full"),
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


def test_an_enlarged_image_knows_the_checksum_of_its_source(tmp_path):
    source = tmp_path / "a.png"
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(source)
    plans = []
    image = ImageJob(str(source), str(tmp_path / "a.zarr"), Options(tiers=("bicubic",)))
    with LocalPool(1) as pool:
        made = enlarge(image, pool, Controls(on_plan=plans.append))
    assert made.status == "done" and plans[0].digest == made.summary.plan
    assert made.source_sha256 == hashlib.sha256(source.read_bytes()).hexdigest()


def test_the_result_table_has_a_row_for_each_outcome():
    rows = [
        ResultRow.of(job(3), NotEnlarged.of(Interrupted())),
        ResultRow.of(job(2), NotEnlarged.of(Quarantined("failed 3 times"))),
        ResultRow.of(job(1), Enlarged(replace(SUMMARY, written=0))),
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
        "plan": "p1",
        "family": None,
        "notes": [],
    }
    noted = replace(SUMMARY, family="photo", notes=("it is small",))
    row = result_table([ResultRow.of(job(1), Enlarged(noted))]).to_pylist()[0]
    assert (row["plan"], row["family"], row["notes"]) == ("p1", "photo", ["it is small"])
    assert (second["plan"], second["family"], second["notes"]) == (None, None, [])
    assert (second["status"], second["error"]) == ("quarantined", "failed 3 times")
    assert third["status"] == "failed" and third["error"].startswith("interrupted")
    assert third["tiles"] == [] and third["height"] is None


def test_addresses_in_results_hold_no_secret():
    image = ImageResult.from_summary(SUMMARY)
    record = ResultRow(1, "s3://key:secret@b/a.tif", "s3://b/a.zarr?sig=x", "done", image)
    assert "secret" not in str(record.to_record())
