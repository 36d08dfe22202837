"""Nights on which something goes wrong: images, disks, workers, or the nightly itself."""

import json
import shutil
import sqlite3
import time
from pathlib import Path

import pyarrow.parquet as pq

from tests.jobs.nights import (
    EVENING,
    line,
    night,
    numbers,
    picture,
    run,
)
from tierscale.pipeline.dataset import runner
from tierscale.pipeline.dataset import scan as archive_files
from tierscale.pipeline.dataset.night.ledger import Ledger
from tierscale.pipeline.errors import DiskFull, Held
from tierscale.pipeline.run.run import upscale_image


def test_poison_is_parked_after_three_nights_and_tried_when_asked(archive, capsys):
    bad = archive / "archive/<script>alert(1).tif"
    bad.write_bytes(b"II*\0 and no more")
    for number in range(3):
        found = night(archive, number)
        assert (
            found["status"] == "failed"
            and found["failed"] == 1
            and found["parked"] == (number == 2)
        )
        assert numbers(night(archive, number))["failed"] == 1, (
            "the same night again does not try it again, and does not forget it"
        )
        assert capsys.readouterr().err.count("alert(1).tif") == 1
    page = Path(found["report"]["html"]).read_text()
    assert (
        "<script" not in page
        and "&lt;script&gt;alert(1).tif" in page
        and "Parked after three nights" in page
    )
    quiet = night(archive, 3)
    assert quiet["status"] == "done" and numbers(quiet) == {"untouched": 3, "parked": 1}
    assert numbers(night(archive, 4, retry_parked=True)) == {"untouched": 3, "failed": 1}
    picture(archive / "archive/good.png", 40)
    shutil.copy(archive / "archive/good.png", bad)
    assert numbers(night(archive, 5)) == {
        "new": 1,
        "changed": 1,
        "untouched": 2,
        "done": 2,
    }, "a mended image needs no asking"


def test_a_full_disk_ends_the_night_and_blames_no_image(archive, monkeypatch):
    def full(*job):
        raise DiskFull(
            "the disk that holds out is full; free some space and give the same command again: what"
            " is done is kept"
        )

    with monkeypatch.context() as patched:
        patched.setattr(runner, "upscale_image", full)
        found = night(archive)
    assert (
        found["status"] == "failed"
        and "is full" in found["error"]
        and numbers(found) == {"new": 2, "left": 2}
    )
    with Ledger(str(archive / "ledger.db")) as ledger:
        assert [row[0] for row in ledger.do("SELECT attempts FROM sources")] == [0, 0]
    assert numbers(night(archive)) == {"untouched": 2, "done": 2}


def test_workers_that_are_gone_blame_no_image(archive, monkeypatch):
    def lost(job, pool, controls):
        pool.close()
        raise RuntimeError("cannot schedule new futures after shutdown")

    monkeypatch.setattr(runner, "upscale_image", lost)
    found = night(archive)
    assert (
        found["status"] == "failed"
        and "the workers are gone" in found["error"]
        and found["left"] == 2
        and not found["failed"]
    )


def test_an_output_that_another_run_writes_does_not_count(archive, monkeypatch):
    def held(*job):
        raise Held("process 1 on elsewhere is writing it")

    monkeypatch.setattr(runner, "upscale_image", held)
    assert night(archive)["failed"] == 2
    with Ledger(str(archive / "ledger.db")) as ledger:
        assert [row[0] for row in ledger.do("SELECT attempts FROM sources")] == [0, 0]


def test_a_killed_night_counts_once_and_is_gone_on_with(archive):
    with Ledger(str(archive / "ledger.db"), lambda: EVENING) as ledger:
        night(archive)
        ledger.do(
            "UPDATE sources SET state = 'working', night = '2026-11-22', holder = 'dead' WHERE"
            " source LIKE '%a.png'"
        )
    found = night(archive)
    assert found["status"] == "done" and found["done"] == 2
    with sqlite3.connect(archive / "ledger.db") as database:
        assert database.execute(
            "SELECT attempts, counted FROM sources WHERE source LIKE '%a.png'"
        ).fetchone() == (0, None)
    database.close()


def test_one_that_kills_the_process_is_at_work_alone(archive, monkeypatch):
    for number in range(4):
        picture(archive / f"archive/{number}.png", 70 + number)
    blamed = ("a.png", "0.png", "1.png")
    with Ledger(str(archive / "ledger.db"), lambda: EVENING) as ledger:
        night(archive)
        for name in blamed:
            ledger.do(
                "UPDATE sources SET state = 'working', night = '2026-11-22', holder = 'dead' WHERE"
                " source LIKE ?",
                f"%{name}",
            )
        ledger.do("UPDATE sources SET state = 'pending' WHERE state = 'done'")
    at_work, seen = set(), []

    def failing(job, *lent):
        name = Path(job.source).name
        at_work.add(name)
        together = len(at_work)
        time.sleep(0.6 if name == "3.png" else 0.2)
        seen.append((name, max(together, len(at_work))))
        try:
            return upscale_image(job, *lent)
        finally:
            at_work.discard(name)

    monkeypatch.setattr(runner, "upscale_image", failing)
    assert night(archive, 1, workers=2)["done"] == 6
    assert [entry for entry in seen if entry[0] in blamed] == [
        ("a.png", 1),
        ("0.png", 1),
        ("1.png", 1),
    ] and seen[-3][0] == "a.png"
    assert max(together for _, together in seen) > 1


def test_an_archive_that_is_suddenly_empty_is_not_all_done(archive):
    night(archive)
    (archive / "archive").rename(archive / "unmounted")
    (archive / "archive").mkdir()
    for number in (1, 2):
        found = night(archive, number)
        assert (
            found["status"] == "failed"
            and "none of the 2 images" in found["error"]
            and "mounted" in found["error"]
        )
        assert "none of the 2 images" in Path(found["report"]["html"]).read_text()
    (archive / "archive").rmdir()
    (archive / "unmounted").rename(archive / "archive")
    assert night(archive, 3)["status"] == "done"


def test_an_archive_that_was_never_filled_is_done(archive):
    shutil.rmtree(archive / "archive")
    (archive / "archive").mkdir()
    assert night(archive)["status"] == "done"


def test_a_ledger_that_was_taken_over_in_the_listing_ends_the_night(archive, monkeypatch, capsys):
    """Nothing was done: a scheduler must not hear that all is."""
    whole, listing = Ledger.lease, archive_files.scan
    monkeypatch.setattr(Ledger, "lease", lambda self, lost: whole(self, lost, 0.01))

    def overtaken(root, problem):
        for number, seen in enumerate(listing(root, problem)):
            if number == 1:
                with sqlite3.connect(archive / "ledger.db") as database:
                    database.execute("UPDATE lease SET token = 'another'")
                database.close()
                time.sleep(0.5)
            yield seen

    monkeypatch.setattr("tierscale.pipeline.dataset.night.survey.scan", overtaken)
    code, out, err = run(capsys, *line(archive))
    assert code == 75 and "took" in json.loads(out)["error"] and "took" in err
    with Ledger(str(archive / "ledger.db")) as ledger:
        assert not list(ledger.do("SELECT * FROM sources"))


def test_names_do_nothing_to_a_terminal_and_failures_are_reported_with_a_cause(archive, capsys):
    (archive / "archive/a\nb\x1b[31m\u202e.tif").write_bytes(b"II*\0")
    code, out, err = run(capsys, *[part for part in line(archive) if part != "--json"])
    assert code == 1 and "\x1b" not in out + err and "\u202e" not in err
    # A slow machine tells how far it is in between.
    first, last = [text for text in err.splitlines() if not text.startswith("images: ")]
    assert (
        "a\\nb\\x1b[31m\\u202e.tif" in first
        and first in last
        and "ledger.db.reports" in last
        and "images that failed: 1, " in last
    )
    page = next((archive / "ledger.db.reports").glob("*.html")).read_text()
    assert "a\\nb\\x1b[31m" in page and "\x1b" not in page
    rows = pq.read_table(next((archive / "ledger.db.reports").glob("*.parquet"))).to_pylist()
    assert any("a\nb\x1b[31m" in row["source"] for row in rows), "the table has the name itself"


def test_a_link_that_leads_nowhere_is_reported_as_one(archive, capsys):
    (archive / "archive/c.png").symlink_to(archive / "elsewhere/c.png")
    assert night(archive)["failed"] == 1
    assert "c.png is a link that leads nowhere (to " in capsys.readouterr().err
