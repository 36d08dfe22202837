"""Nights over an archive: new and changed images are enlarged, the rest untouched, failures parked,
and the exit code is honest.
"""

import json
import os
import re
import shutil
import sqlite3
import time
from datetime import datetime
from fractions import Fraction
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import skimage.data
from PIL import Image

from tierscale.jobs import shift
from tierscale.jobs.cli.exits import Draining
from tierscale.jobs.cli.main import main
from tierscale.jobs.nightly import NightlyOptions, closing, nightly
from tierscale.pipeline.dataset import scan as archive_files
from tierscale.pipeline.dataset.ledger import Ledger
from tierscale.pipeline.errors import Full, Held, Interrupted, Refused
from tierscale.pipeline.formats import fingerprint as identity
from tierscale.pipeline.output.receipts import Folder
from tierscale.pipeline.plan.plan import Options
from tierscale.pipeline.run.pool import LocalPool
from tierscale.pipeline.run.run import Request, Run
from tierscale.pipeline.run.verify import verify_output

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
    given = {
        "until": "06:00",
        "image": Options(tiers=("bicubic",), tile=32),
        "ray": "none",
        "workers": 1,
        "quiet": True,
        **more,
    }
    places = {
        name: given.pop(name, default)
        for name, default in (("archive", "archive"), ("output", "out"), ("ledger", "ledger.db"))
    }
    return NightlyOptions(
        **{name: path if "://" in path else str(root / path) for name, path in places.items()},
        **given,
    )


def night(root, number=0, **more):
    """The summary of a night; number: nights after the first."""
    return nightly(options(root, **more), clock=lambda: EVENING + number * DAY)


def numbers(found):
    return {
        name: found[name]
        for name in ("new", "changed", "untouched", "gone", "done", "failed", "parked", "left")
        if found[name]
    }


def stamps(root):
    return {path: path.stat().st_mtime_ns for path in (root / "out").rglob("*") if path.is_file()}


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


def test_the_window_closes_with_work_left_and_the_next_night_goes_on(archive, monkeypatch):
    for number in range(4):
        picture(archive / f"archive/{number}.png", 70 + number)
    ended = []
    whole = Run.carry_out
    monkeypatch.setattr(
        Run, "carry_out", lambda self: (whole(self), ended.append(self.request.source))[0]
    )
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


def test_what_others_made_is_not_replaced(archive):
    theirs = archive / "out/a.png.zarr"
    theirs.mkdir(parents=True)
    (theirs / "zarr.json").write_text("theirs")
    found = night(archive)
    assert (
        numbers(found) == {"new": 2, "done": 1, "failed": 1}
        and (theirs / "zarr.json").read_text() == "theirs"
    )
    picture(archive / "archive/a.png", 44)
    assert night(archive, 1)["failed"] == 1 and (theirs / "zarr.json").read_text() == "theirs"


def test_what_a_person_made_with_other_options_is_not_replaced(archive):
    with LocalPool(1) as pool:
        Run(
            Request(
                str(archive / "archive/a.png"),
                str(archive / "out/a.png.zarr"),
                Options(tiers=("bicubic",), tile=64),
            ),
            pool,
        ).carry_out()
    before = {
        path: stamp for path, stamp in stamps(archive).items() if "tierscale" not in path.name
    }
    for number in range(2):
        assert night(archive, number)["failed"] == 1
    assert all(stamps(archive)[path] == stamp for path, stamp in before.items())
    assert numbers(night(archive, 2, overwrite=True)) == {"untouched": 2, "done": 1}


def test_a_full_disk_ends_the_night_and_blames_no_image(archive, monkeypatch):
    def full(self):
        raise Full(
            "the disk that holds out is full; free some space and give the same command again: what"
            " is done is kept"
        )

    with monkeypatch.context() as patched:
        patched.setattr(Run, "carry_out", full)
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
    def lost(self):
        self.pool.close()
        raise RuntimeError("cannot schedule new futures after shutdown")

    monkeypatch.setattr(Run, "carry_out", lost)
    found = night(archive)
    assert (
        found["status"] == "failed"
        and "the workers are gone" in found["error"]
        and found["left"] == 2
        and not found["failed"]
    )


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
    at_work, seen, whole = set(), [], Run.carry_out

    def told(self):
        name = Path(self.request.source).name
        at_work.add(name)
        together = len(at_work)
        time.sleep(0.6 if name == "3.png" else 0.2)
        seen.append((name, max(together, len(at_work))))
        try:
            return whole(self)
        finally:
            at_work.discard(name)

    monkeypatch.setattr(Run, "carry_out", told)
    assert night(archive, 1, workers=2)["done"] == 6
    assert [entry for entry in seen if entry[0] in blamed] == [
        ("a.png", 1),
        ("0.png", 1),
        ("1.png", 1),
    ] and seen[-3][0] == "a.png"
    assert max(together for _, together in seen) > 1


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
            assert not verify_output(str(archive / f"out/{name}.zarr"), pool, False)["problems"]
    assert numbers(night(archive, 2)) == {"untouched": 3}


def test_another_output_is_filled_and_nothing_there_is_taken_for_ours(archive):
    night(archive)
    theirs = archive / "second/a.png.zarr"
    theirs.mkdir(parents=True)
    (theirs / "zarr.json").write_text("theirs")
    found = night(archive, 1, output="second")
    assert (
        numbers(found) == {"untouched": 2, "done": 1, "failed": 1}
        and (theirs / "zarr.json").read_text() == "theirs"
    )
    assert (archive / "second/deep/b.png.zarr/zarr.json").exists() and (
        archive / "out/a.png.zarr"
    ).exists()


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


def test_no_output_lands_in_the_archive(archive):
    """The archive lies in the output root, and a folder in it is called as the archive is."""
    (archive / "archive/archive").mkdir()
    picture(archive / "archive/archive/c.png", 40)
    (archive / "linked").symlink_to(archive / "archive")
    (archive / "archive/linked").mkdir()
    picture(archive / "archive/linked/d.png", 40)
    found = night(archive, output=".")
    assert (
        numbers(found) == {"new": 4, "done": 2, "failed": 2}
        and "lies inside the archive" in found["error"]
    )
    assert not list((archive / "archive").rglob("*.zarr*"))
    assert (archive / "a.png.zarr").exists()


def test_a_link_that_leads_nowhere_is_told_as_one(archive, capsys):
    (archive / "archive/c.png").symlink_to(archive / "elsewhere/c.png")
    assert night(archive)["failed"] == 1
    assert "c.png is a link that leads nowhere (to " in capsys.readouterr().err


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

    monkeypatch.setattr("tierscale.jobs.nightly.scan", overtaken)
    code, out, err = run(capsys, *line(archive))
    assert code == 75 and "took" in json.loads(out)["error"] and "took" in err
    with Ledger(str(archive / "ledger.db")) as ledger:
        assert not list(ledger.do("SELECT * FROM sources"))


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
        patched.setattr("tierscale.jobs.nightly.content_sha256", slow)
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

        patched.setattr("tierscale.jobs.nightly.content_sha256", signalled)
        with pytest.raises(Interrupted):
            nightly(options(archive), draining, lambda: now[0])
    assert numbers(night(archive, 3)) == {"untouched": 2}, (
        "what was left in doubt is decided another night"
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image": Options(tiers=("bicubic",), scout="/nope")}, "/nope"),
        (
            {
                "image": Options(
                    tiers=("bicubic", "fsrcnn-x4"), policy="quality", lose=1.0, scale=Fraction(3)
                )
            },
            "x4",
        ),
        ({"max_memory": 1 << 20}, "--max-memory"),
        ({"max_memory": 2100 << 20, "workers": 3}, "lower --workers"),
        ({"ledger": "s3://AKIA:sEcReT@b/l.db"}, "holds a secret"),
        ({"source_roots": ("s3://AKIA:sEcReT@b/l",)}, "holds a secret"),
        ({"image": Options(tiers=("bicubic", "file:https://u:sEc,ReT@h/x"))}, "holds a secret"),
        ({"image": Options(tiers=("bicubic",), scout="https://u:sEcReT@h/x")}, "holds a secret"),
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

    paths = {
        name: (
            str(archive / value)
            if name in ("archive", "output", "ledger") and "://" not in value
            else value
        )
        for name, value in change.items()
    }
    with pytest.raises(Refused, match=words) as error:
        nightly(replace(options(archive), **paths), clock=lambda: EVENING)
    assert "sEcReT" not in str(error.value) and "ReT" not in str(error.value)
    assert not (archive / "ledger.db.reports").exists()
    assert (archive / "ledger.db").exists() == ("there is no archive" in words), (
        "only to find the archive missing is the ledger opened"
    )


def test_more_workers_than_the_memory_can_have_are_refused_before_any_image(archive, monkeypatch):
    """How many there are is known once they have started."""
    monkeypatch.setattr("tierscale.cluster.session.cores", lambda: 3)
    with pytest.raises(Refused, match="3 workers"):
        night(archive, workers=None, max_memory=1500 << 20)
    with Ledger(str(archive / "ledger.db")) as ledger:
        assert [tuple(row) for row in ledger.do("SELECT state, attempts FROM sources")] == [
            ("pending", 0)
        ] * 2


def test_names_do_nothing_to_a_terminal_and_failures_are_told_with_a_cause(archive, capsys):
    (archive / "archive/a\nb\x1b[31m\u202e.tif").write_bytes(b"II*\0")
    code, out, err = run(capsys, *[part for part in line(archive) if part != "--json"])
    assert (
        code == 1 and "\x1b" not in out + err and "\u202e" not in err and len(err.splitlines()) == 2
    ), err
    first, last = err.splitlines()
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


def test_a_large_file_is_not_read_to_its_end_once_the_night_is_over(archive, monkeypatch):
    whole = Run.carry_out
    with monkeypatch.context() as patched:
        patched.setattr(identity, "WHOLE_DIGEST", 0)
        patched.setattr(identity, "END", 16)
        patched.setattr(Run, "carry_out", lambda self: (whole(self), self.stop.set())[0])
        assert night(archive)["done"] >= 1
    with Ledger(str(archive / "ledger.db")) as ledger:
        assert {
            row["sha256"] for row in ledger.do("SELECT sha256 FROM sources WHERE state = 'done'")
        } == {None}


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


def line(root):
    return ("nightly", "--archive", root / "archive", "--output", root / "out", "--ledger", root / "ledger.db",
            "--until", "06:00", "--ray", "none", "--tiers", "bicubic", "--json")  # fmt: skip


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
