"""Nights over an archive: new and changed images are enlarged, the rest untouched, failures parked, and the exit code is honest."""

import json
import os
import re
import shutil
import sqlite3
from datetime import datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import skimage.data
from PIL import Image

from jobs import shift
from jobs.cli import main
from jobs.ending import Draining
from jobs.nightly import NightlyOptions, closing, nightly
from pipeline.errors import Full, Held, Refused
from pipeline.ledger import Ledger
from pipeline.plan import Options
from pipeline.pool import LocalPool
from pipeline.receipts import Folder
from pipeline.run import Request, Run

EVENING = datetime(2026, 11, 21, 22, 0).timestamp()
DAY = 86400.0
STARS = skimage.data.hubble_deep_field()


@pytest.fixture
def archive(tmp_path):
    folder = tmp_path / "archive"
    (folder / "deep").mkdir(parents=True)
    picture(folder / "a.png", 40)
    picture(folder / "deep/b.png", 60)
    return tmp_path


def picture(path, side, at=0):
    Image.fromarray(STARS[at : at + side, :side]).save(path)


def options(root, **more):
    given = {"until": "06:00", "image": Options(tiers=("bicubic",), tile=32), "ray": "none", "workers": 1, "quiet": True, **more}
    return NightlyOptions(str(root / "archive"), str(root / "out"), str(root / "ledger.db"), **given)


def night(root, number=0, **more):
    """The summary of a night; number: nights after the first."""
    return nightly(options(root, **more), clock=lambda: EVENING + number * DAY)


def numbers(found):
    return {name: found[name] for name in ("new", "changed", "untouched", "gone", "done", "failed", "parked", "left") if found[name]}


def stamps(root):
    return {path: path.stat().st_mtime_ns for path in (root / "out").rglob("*") if path.is_file()}


def test_only_what_is_new_or_changed_is_enlarged(archive):
    first = night(archive)
    assert first["status"] == "done" and first["error"] is None and numbers(first) == {"new": 2, "done": 2}
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
    assert Folder(rows[0]["output"]).plan().digest == rows[0]["plan"] and dict(rows[0]["tiles"]) == {"bicubic": 4}


def test_poison_is_parked_after_three_nights_and_tried_when_asked(archive, capsys):
    bad = archive / "archive/<script>alert(1).tif"
    bad.write_bytes(b"II*\0 and no more")
    for number in range(3):
        found = night(archive, number)
        assert found["status"] == "failed" and found["failed"] == 1 and found["parked"] == (number == 2)
        assert numbers(night(archive, number))["failed"] == 1, "the same night again does not try it again, and does not forget it"
        assert capsys.readouterr().err.count("alert(1).tif") == 1
    page = Path(found["report"]["html"]).read_text()
    assert "<script" not in page and "&lt;script&gt;alert(1).tif" in page and "Parked after three nights" in page
    quiet = night(archive, 3)
    assert quiet["status"] == "done" and numbers(quiet) == {"untouched": 3, "parked": 1}
    assert numbers(night(archive, 4, retry_parked=True)) == {"untouched": 3, "failed": 1}
    picture(archive / "archive/good.png", 40)
    shutil.copy(archive / "archive/good.png", bad)
    assert numbers(night(archive, 5)) == {"new": 1, "changed": 1, "untouched": 2, "done": 2}, "a mended image needs no asking"


def test_the_window_closes_with_work_left_and_the_next_night_goes_on(archive, monkeypatch):
    for number in range(4):
        picture(archive / f"archive/{number}.png", 70 + number)
    ended = []
    whole = Run.carry_out
    monkeypatch.setattr(Run, "carry_out", lambda self: (whole(self), ended.append(self.request.source))[0])
    found = nightly(options(archive), clock=lambda: EVENING + (DAY if ended else 0))
    assert found["status"] == "left" and "the window closed" in found["error"]
    assert found["done"] + found["left"] == 6
    assert {Path(source).name for source in ended} <= {"a.png", "b.png"}, "small ones go first"
    again = night(archive, 1)
    assert again["status"] == "done" and again["done"] == found["left"] and night(archive, 2)["untouched"] == 6


def test_other_options_leave_finished_images_alone_unless_told(archive):
    night(archive)
    before = stamps(archive)
    other = Options(tiers=("bicubic",), tile=64)
    assert numbers(night(archive, 1, image=other)) == {"untouched": 2} and stamps(archive) == before
    assert numbers(night(archive, 2, image=other, overwrite=True)) == {"untouched": 2, "done": 2}
    assert numbers(night(archive, 3, image=other, overwrite=True)) == {"untouched": 2}


def test_what_others_made_is_not_replaced(archive):
    theirs = archive / "out/a.png.zarr"
    theirs.mkdir(parents=True)
    (theirs / "zarr.json").write_text("theirs")
    found = night(archive)
    assert numbers(found) == {"new": 2, "done": 1, "failed": 1} and (theirs / "zarr.json").read_text() == "theirs"
    picture(archive / "archive/a.png", 44)
    assert night(archive, 1)["failed"] == 1 and (theirs / "zarr.json").read_text() == "theirs"


def test_what_a_person_made_with_other_options_is_not_replaced(archive):
    with LocalPool(1) as pool:
        Run(
            Request(str(archive / "archive/a.png"), str(archive / "out/a.png.zarr"), Options(tiers=("bicubic",), tile=64)), pool
        ).carry_out()
    before = {path: stamp for path, stamp in stamps(archive).items() if "tierscale" not in path.name}
    for number in range(2):
        assert night(archive, number)["failed"] == 1
    assert all(stamps(archive)[path] == stamp for path, stamp in before.items())
    assert numbers(night(archive, 2, overwrite=True)) == {"untouched": 2, "done": 1}


def test_a_full_disk_ends_the_night_and_blames_no_image(archive, monkeypatch):
    def full(self):
        raise Full("the disk that holds out is full; free some space and give the same command again: what is done is kept")

    with monkeypatch.context() as patched:
        patched.setattr(Run, "carry_out", full)
        found = night(archive)
    assert found["status"] == "failed" and "is full" in found["error"] and numbers(found) == {"new": 2, "left": 2}
    with Ledger(str(archive / "ledger.db")) as ledger:
        assert [row[0] for row in ledger.do("SELECT attempts FROM sources")] == [0, 0]
    assert numbers(night(archive)) == {"untouched": 2, "done": 2}


def test_workers_that_are_gone_blame_no_image(archive, monkeypatch):
    def lost(self):
        self.pool.close()
        raise RuntimeError("cannot schedule new futures after shutdown")

    monkeypatch.setattr(Run, "carry_out", lost)
    found = night(archive)
    assert found["status"] == "failed" and "the workers are gone" in found["error"] and found["left"] == 2 and not found["failed"]


def test_an_output_that_another_run_writes_does_not_count(archive, monkeypatch):
    def held(self):
        raise Held("process 1 on elsewhere is writing it")

    monkeypatch.setattr(Run, "carry_out", held)
    assert night(archive)["failed"] == 2
    with Ledger(str(archive / "ledger.db")) as ledger:
        assert [row[0] for row in ledger.do("SELECT attempts FROM sources")] == [0, 0]


def test_a_killed_night_counts_once_and_is_gone_on_with(archive):
    with Ledger(str(archive / "ledger.db"), lambda: EVENING) as ledger:
        night(archive)
        ledger.do("UPDATE sources SET state = 'working', night = '2026-11-22', holder = 'dead' WHERE source LIKE '%a.png'")
    found = night(archive)
    assert found["status"] == "done" and found["done"] == 2
    with sqlite3.connect(archive / "ledger.db") as database:
        assert database.execute("SELECT attempts, counted FROM sources WHERE source LIKE '%a.png'").fetchone() == (0, None)
    database.close()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"until": "24:00"}, "is no time of day"),
        ({"image": Options(tiers=("nonesuch",))}, "nonesuch"),
        ({"output": "archive/out"}, "lies inside the archive"),
        ({"archive": "nowhere"}, "there is no archive"),
        ({"ledger": "nowhere/l.db"}, "no folder"),
        ({"output": "archive/a.png"}, "lies inside the archive"),
    ],
)
def test_what_would_fail_for_every_image_is_refused_before_any(archive, change, words):
    from dataclasses import replace

    paths = {name: str(archive / value) if name in ("archive", "output", "ledger") else value for name, value in change.items()}
    with pytest.raises(Refused, match=words):
        nightly(replace(options(archive), **paths), clock=lambda: EVENING)
    assert not (archive / "ledger.db.reports").exists()


def test_the_window_is_in_local_time():
    at = datetime(2026, 11, 21, 5, 59, 30).timestamp()
    assert closing("06:00", at) == at + 30 and closing("6:00", at + 30) == at + 30 + DAY
    assert closing("05:59", at) == at + DAY - 30


def test_a_signal_drains_and_leaves_the_rest(archive):
    draining = Draining()

    class Stopping(Run):
        def carry_out(self):
            draining.code = 143
            draining.stop.set()
            return super().carry_out()

    original, shift.Run = shift.Run, Stopping
    try:
        found = nightly(options(archive), draining, lambda: EVENING)
    finally:
        shift.Run = original
    assert found["status"] == "interrupted" and found["left"] >= 1 and "stopped" in found["error"]


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return ended.value.code or 0, out, err


def test_the_command_and_its_exit_codes(archive, capsys):
    command = ("nightly", "--archive", archive / "archive", "--output", archive / "out", "--ledger", archive / "ledger.db",
               "--until", "06:00", "--ray", "none", "--tiers", "bicubic", "--json")  # fmt: skip
    code, out, err = run(capsys, *command)
    assert code == 0 and json.loads(out)["done"] == 2, err
    with Ledger(str(archive / "ledger.db")) as ledger, ledger.lease(lambda: None):
        code, out, err = run(capsys, *command)
    assert code == 75 and json.loads(out)["status"] == "left" and re.search(r"process \d+ on .* holds", err) and len(err.splitlines()) == 1
    (archive / "archive/x.tif").write_bytes(b"")
    code, out, err = run(capsys, *command)
    assert code == 1 and json.loads(out)["failed"] == 1 and "x.tif" in err
    assert run(capsys, *command, "--until", "late")[0] == 2
