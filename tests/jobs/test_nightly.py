"""Nights over an archive: what is new or changed is enlarged, the rest is untouched."""

import json
import os
import re
import shutil
from datetime import datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.jobs.nights import (
    DAY,
    EVENING,
    STARS,
    line,
    night,
    numbers,
    options,
    picture,
    run,
    stamps,
)
from tierscale.jobs.cli.exits import Draining
from tierscale.jobs.night_run import closing_time, nightly
from tierscale.pipeline.dataset import runner
from tierscale.pipeline.dataset.night.ledger import Ledger
from tierscale.pipeline.errors import Interrupted, Refused
from tierscale.pipeline.formats import fingerprint as identity
from tierscale.pipeline.output.receipts import Folder
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.run.run import upscale_image
from tierscale.pipeline.run.verify import Look, verify_output
from tierscale.pipeline.run.workers.pool import LocalPool


def test_only_what_is_new_or_changed_is_enlarged(archive):
    first = night(archive)
    assert (
        first["status"] == "done"
        and first["error"] is None
        and numbers(first) == {"new": 2, "done": 2}
    )
    before = stamps(archive)
    assert numbers(night(archive, 1)) == {"untouched": 2} and stamps(archive) == before
    picture(archive / "archive/a.png", 40, at=100)
    picture(archive / "archive/deep/c.png", 50)
    os.utime(archive / "archive/deep/b.png", (1, 1))
    (archive / "archive/deep/d.tif").mkdir()
    third = night(archive, 2)
    assert numbers(third) == {"new": 1, "changed": 1, "untouched": 1, "done": 2}
    untouched = {path for path in before if "b.png.zarr" in str(path)}
    assert untouched and all(stamps(archive)[path] == before[path] for path in untouched)
    rows = pq.read_table(third["report"]["table"]).to_pylist()
    assert [(Path(row["source"]).name, row["state"], row["night"]) for row in rows] == [
        ("a.png", "done", "2026-11-24"), ("c.png", "done", "2026-11-24"),
    ]  # fmt: skip
    assert Folder(rows[0]["output"]).plan().digest == rows[0]["plan"] and dict(
        rows[0]["tiles"]
    ) == {"bicubic": 4}


def test_the_window_closes_with_work_left_and_the_next_night_goes_on(archive, monkeypatch):
    for number in range(4):
        picture(archive / f"archive/{number}.png", 70 + number)
    ended = []

    def upscaled(job, *lent):
        summary = upscale_image(job, *lent)
        ended.append(job.source)
        return summary

    monkeypatch.setattr(runner, "upscale_image", upscaled)
    found = nightly(options(archive), clock=lambda: EVENING + (DAY if ended else 0))
    assert found["status"] == "left" and "the window closed" in found["error"]
    assert found["done"] + found["left"] == 6
    assert {Path(source).name for source in ended} <= {"a.png", "b.png"}, "small ones go first"
    again = night(archive, 1)
    assert (
        again["status"] == "done"
        and again["done"] == found["left"]
        and night(archive, 2)["untouched"] == 6
    )


def test_other_options_leave_finished_images_alone_unless_told(archive):
    night(archive)
    before = stamps(archive)
    other = Options(tiers=("bicubic",), tile=64)
    assert numbers(night(archive, 1, image=other)) == {"untouched": 2} and stamps(archive) == before
    assert numbers(night(archive, 2, image=other, overwrite=True)) == {"untouched": 2, "done": 2}
    assert numbers(night(archive, 3, image=other, overwrite=True)) == {"untouched": 2}


@pytest.mark.parametrize(
    "lost",
    ["a.png.zarr", "a.png.zarr.tierscale", "a.png.zarr*", "c.jpg.zarr", "c.jpg.zarr.tierscale"],
)
def test_an_output_that_is_gone_is_made_again(archive, lost):
    Image.fromarray(STARS[:50, :50]).save(archive / "archive/c.jpg")
    night(archive)
    for path in (archive / "out").glob(lost):
        shutil.rmtree(path)
    found = night(archive, 1)
    assert found["status"] == "done" and numbers(found) == {"untouched": 3, "done": 1}, found
    for name in ("a.png", "c.jpg"):
        with LocalPool(1) as pool:
            assert not verify_output(str(archive / f"out/{name}.zarr"), pool, Look()).problems
    assert numbers(night(archive, 2)) == {"untouched": 3}


def test_without_its_ledger_a_changed_image_is_made_anew(archive):
    night(archive)
    (archive / "ledger.db").unlink()
    picture(archive / "archive/a.png", 44, at=100)
    assert numbers(night(archive, 1)) == {"new": 2, "done": 2}
    assert Folder(str(archive / "out/a.png.zarr")).plan().shape == (3, 44, 44)
    (archive / "ledger.db").unlink()
    picture(archive / "archive/a.png", 48)
    other = Options(tiers=("bicubic",), tile=64)
    assert night(archive, 2, image=other)["failed"] == 2, "what was made with other options stays"
    (archive / "ledger.db").unlink()
    shutil.copytree(archive / "archive", archive / "copy")
    assert night(archive, 3, archive="copy")["failed"] == 1, "so does what was made of another file"


def test_addresses_of_local_files_are_paths(archive):
    roots = {"archive": f"file://{archive}/archive/", "output": f"file://{archive}/out"}
    (archive / "elsewhere").mkdir()
    picture(archive / "elsewhere/c.png", 40)
    (archive / "archive/c.png").symlink_to(archive / "elsewhere/c.png")
    assert numbers(night(archive, **roots, source_roots=(f"file://{archive}/elsewhere",))) == {
        "new": 3,
        "done": 3,
    }
    assert (archive / "out/deep/b.png.zarr/zarr.json").exists()
    assert numbers(night(archive, 1)) == {"untouched": 3}
    with pytest.raises(Refused, match="lies inside the archive"):
        night(archive, 2, output=f"file://{archive}/archive/out")


def test_a_checksum_of_hours_ends_with_the_window_or_a_signal(archive, monkeypatch):
    night(archive)
    for name in ("a.png", "deep/b.png"):
        os.utime(archive / "archive" / name, (1, 1))
    now, draining = [EVENING + DAY], Draining()

    def slow(source, check):
        for _ in range(100):
            check()
            now[0] += DAY / 24
        raise AssertionError("the window closed long ago")

    with monkeypatch.context() as patched:
        patched.setattr("tierscale.pipeline.dataset.night.survey.content_sha256", slow)
        found = nightly(options(archive), clock=lambda: now[0])
        assert (
            found["status"] == "left"
            and numbers(found) == {"left": 2}
            and "the window closed" in found["error"]
        )
        now[0] = EVENING + 2 * DAY

        def signalled(source, check):
            draining.stop.set()
            check()
            raise AssertionError("it goes on after the signal")

        patched.setattr("tierscale.pipeline.dataset.night.survey.content_sha256", signalled)
        with pytest.raises(Interrupted):
            nightly(options(archive), draining, lambda: now[0])
    assert numbers(night(archive, 3)) == {"untouched": 2}, (
        "what was left in doubt is decided another night"
    )


def test_a_large_file_is_not_read_to_its_end_once_the_night_is_over(archive, monkeypatch):
    def upscaled(job, pool, controls):
        summary = upscale_image(job, pool, controls)
        controls.stop.set()
        return summary

    with monkeypatch.context() as patched:
        patched.setattr(identity, "WHOLE_DIGEST", 0)
        patched.setattr(identity, "BLOCK", 16)
        patched.setattr(runner, "upscale_image", upscaled)
        assert night(archive)["done"] >= 1
    with Ledger(str(archive / "ledger.db")) as ledger:
        assert {
            row["sha256"] for row in ledger.do("SELECT sha256 FROM sources WHERE state = 'done'")
        } == {None}


def test_the_window_is_in_local_time():
    at = datetime(2026, 11, 21, 5, 59, 30).timestamp()
    assert closing_time("06:00", at) == at + 30 and closing_time("6:00", at + 30) == at + 30 + DAY
    assert closing_time("05:59", at) == at + DAY - 30


def test_a_signal_drains_and_leaves_the_rest(archive, monkeypatch):
    draining = Draining()

    def stopping(*job):
        draining.code = 143
        draining.stop.set()
        return upscale_image(*job)

    monkeypatch.setattr(runner, "upscale_image", stopping)
    found = nightly(options(archive), draining, lambda: EVENING)
    assert found["status"] == "interrupted" and found["left"] >= 1 and "stopped" in found["error"]


def test_the_command_and_its_exit_codes(archive, capsys):
    command = line(archive)
    code, out, err = run(capsys, *command)
    assert code == 0 and json.loads(out)["done"] == 2, err
    with Ledger(str(archive / "ledger.db")) as ledger, ledger.lease(lambda: None):
        code, out, err = run(capsys, *command)
    assert (
        code == 75
        and json.loads(out)["status"] == "left"
        and re.search(r"process \d+ on .* holds", err)
        and len(err.splitlines()) == 1
    )
    (archive / "archive/x.tif").write_bytes(b"")
    code, out, err = run(capsys, *command)
    assert code == 1 and json.loads(out)["failed"] == 1 and "x.tif" in err
    assert run(capsys, *command, "--until", "late")[0] == 2
