"""Nights on which the archive or the outputs are not there: nobody's fault, and no success."""

import builtins
import errno
import json
import os
import shutil

import pytest

from tests.jobs.nights import line, night, numbers, options, picture, run
from tests.object_server import EXPIRED
from tests.pipeline.storage.conftest import server as server
from tierscale.jobs.night_run import nightly
from tierscale.pipeline.dataset import runner
from tierscale.pipeline.dataset.night.ledger import Ledger
from tierscale.pipeline.run.run import upscale_image
from tierscale.pipeline.storage.object_path import ObjectPath

NAMES = ("a.png", "deep/b.png", "c.png", "d.png", "e.png", "f.png")


@pytest.fixture
def six(archive):
    """An archive of six images."""
    for number, name in enumerate(NAMES[2:]):
        picture(archive / "archive" / name, 70 + number)
    return archive


def rows(root):
    with Ledger(str(root / "ledger.db")) as ledger:
        return [tuple(row) for row in ledger.do("SELECT state, attempts FROM sources")]


def unmount(folder, away):
    folder.rename(away)
    folder.mkdir()


def mount(folder, away):
    folder.rmdir()
    away.rename(folder)


def while_enlarging(monkeypatch, number, happens):
    """Let something happen after so many images; how many were tried is in the list."""
    tried = []

    def upscaled(job, *lent):
        tried.append(job.source)
        if len(tried) == number:
            happens()
        return upscale_image(job, *lent)

    monkeypatch.setattr(runner, "upscale_image", upscaled)
    return tried


def test_an_archive_that_goes_away_for_three_nights_costs_no_image_an_attempt(
    six, monkeypatch, capsys
):
    folder, away = six / "archive", six / "away"
    for number in range(3):
        with monkeypatch.context() as patched:
            tried = while_enlarging(patched, 2, lambda: unmount(folder, away))
            found = night(six, number)
        assert found["status"] == "failed" and not found["failed"] and found["left"] >= 2
        assert found["error"].startswith(f"the archive {folder} is out of reach")
        assert len(tried) <= 1 + 2, "no more than one after it, for each that may be under way"
        assert set(rows(six)) <= {("done", 0), ("pending", 0)}
        assert not capsys.readouterr().err, "it is said once, at the end"
        mount(folder, away)
    found = night(six, 3)
    assert found["status"] == "done" and found["left"] == found["parked"] == 0
    assert rows(six) == [("done", 0)] * 6


def test_a_disk_that_fails_is_an_outage(six, monkeypatch):
    whole = builtins.open

    def fail():
        def opened(path, *more, **named):
            if str(path).startswith(str(six / "archive")):
                raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
            return whole(path, *more, **named)

        monkeypatch.setattr(builtins, "open", opened)

    while_enlarging(monkeypatch, 2, fail)
    found = night(six)
    assert found["status"] == "failed" and "is out of reach" in found["error"]
    assert "cannot be read (Input/output error)" in found["error"]
    assert set(rows(six)) <= {("done", 0), ("pending", 0)}
    monkeypatch.undo()
    assert night(six, 1)["status"] == "done" and rows(six) == [("done", 0)] * 6


def test_credentials_that_expire_are_an_outage(six, monkeypatch, server):
    for name in NAMES:
        content = (six / "archive" / name).read_bytes()
        ObjectPath(f"s3://bucket/scans/{name}").write_bytes(content)

    def expire():
        server.refusal = EXPIRED

    with monkeypatch.context() as patched:
        tried = while_enlarging(patched, 2, expire)
        found = night(six, archive="s3://bucket/scans")
    assert found["status"] == "failed" and not found["failed"]
    assert found["error"].startswith("the archive s3://bucket/scans is out of reach")
    assert "the credentials have expired (ExpiredToken" in found["error"]
    assert "damaged" not in found["error"] and len(tried) <= 3
    assert set(rows(six)) <= {("done", 0), ("pending", 0)}
    found = night(six, 1, archive="s3://bucket/scans")
    assert found["status"] == "failed" and "have expired" in found["error"], "nor is it success"
    server.refusal = None
    assert night(six, 2, archive="s3://bucket/scans")["status"] == "done"


def test_one_deleted_image_fails_alone(six, monkeypatch):
    while_enlarging(monkeypatch, 1, lambda: (six / "archive/f.png").unlink())
    assert numbers(night(six)) == {"new": 6, "done": 5, "failed": 1}
    assert sorted(rows(six))[-1] == ("failed", 1)


def test_outputs_that_are_not_mounted_are_not_made_again(six, capsys):
    assert run(capsys, *line(six))[0] == 0
    unmount(six / "out", six / "disk")
    code, out, err = run(capsys, *line(six))
    assert code == 1 and json.loads(out)["status"] == "failed"
    assert "none of the 6 outputs that are known" in err and "mounted" in err
    assert not list((six / "out").iterdir()) and rows(six) == [("done", 0)] * 6
    picture(six / "archive/new.png", 40)
    assert run(capsys, *line(six))[0] == 1 and not list((six / "out").iterdir())
    mount(six / "out", six / "disk")
    assert numbers(json.loads(run(capsys, *line(six))[1]))["untouched"] == 7


def test_outputs_that_were_deleted_on_purpose_are_made_again_when_asked(six):
    night(six)
    shutil.rmtree(six / "out")
    assert night(six, 1)["status"] == "failed" and not (six / "out").exists()
    assert numbers(night(six, 2, overwrite=True)) == {"untouched": 6, "done": 6}
    assert numbers(night(six, 3, output="other")) == {"untouched": 6, "done": 6}


def test_outputs_that_are_unmounted_during_the_night_end_it(six, monkeypatch):
    with monkeypatch.context() as patched:
        while_enlarging(patched, 4, lambda: unmount(six / "out", six / "disk"))
        found = night(six)
    assert found["status"] == "failed" and "is not mounted any more" in found["error"]
    assert set(rows(six)) <= {("done", 0), ("pending", 0)} and found["left"] >= 1
    with Ledger(str(six / "ledger.db")) as ledger:
        done = [output for _, output in ledger.done_outputs()]
    lie = [six / "disk" / os.path.relpath(output, six / "out") for output in done]
    assert done and all(path.exists() for path in lie), "what is done lies on the disk"
    shutil.rmtree(six / "out")
    (six / "disk").rename(six / "out")
    for lease in (six / "out").rglob("lease.json"):  # of a process that is dead by the next night
        lease.unlink()
    found = night(six, 1)
    assert found["status"] == "done" and rows(six) == [("done", 0)] * 6, found["error"]


def test_nothing_is_written_where_ray_deletes_it(six, monkeypatch, capsys):
    unpacked = six / "runtime_resources/working_dir_files/_ray_pkg_1"
    unpacked.mkdir(parents=True)
    monkeypatch.chdir(unpacked)
    command = [str(part) for part in line(six)]
    for name, path in (("--output", str(six / "out")), ("--ledger", str(six / "ledger.db"))):
        relative = [os.path.basename(path) if part == path else part for part in command]
        code, _, err = run(capsys, *relative)
        assert code == 2 and name in err and "give an absolute path" in err
    assert not list(unpacked.iterdir()) and not (six / "ledger.db").exists()
    monkeypatch.chdir(six)
    code, out, _ = run(capsys, *(os.path.basename(part) if "ledger" in part and part != "--ledger"
                                 else part for part in command))  # fmt: skip
    assert code == 0 and json.loads(out)["report"]["html"].startswith(f"{six}/ledger.db.reports/")


def test_what_is_being_copied_waits_and_a_future_date_does_not(six, capsys):
    command = (*line(six), "--settle", "10m")
    for name in NAMES:
        os.utime(six / "archive" / name, (1.6e9, 1.6e9))
    (six / "archive/a.png").touch()
    os.utime(six / "archive/c.png", (4e9, 4e9))
    code, out, err = run(capsys, *command)
    found = json.loads(out)
    assert code == 75 and numbers(found) == {"new": 6, "done": 5, "left": 1}
    assert found["unsettled"] == 1 and "may still be being written" in err
    assert sorted(rows(six))[-1] == ("pending", 0)
    os.utime(six / "archive/a.png", (1.6e9, 1.6e9))
    code, out, _ = run(capsys, *command)
    assert code == 0 and json.loads(out)["unsettled"] == 0 and rows(six) == [("done", 0)] * 6


def test_off_by_default_nothing_waits(six):
    (six / "archive/a.png").touch()
    assert numbers(nightly(options(six, until="23:59"))) == {"new": 6, "done": 6}


def test_a_share_of_the_outputs_is_read_again_and_damage_is_work(six, capsys):
    run(capsys, *line(six))
    shard = next(p for p in (six / "out/a.png.zarr/0/c").rglob("*") if p.is_file())
    content = shard.read_bytes()
    shard.write_bytes(content[:-20])
    next((six / "out/f.png.zarr.tierscale/receipts/0").iterdir()).unlink()
    assert json.loads(run(capsys, *line(six))[1])["read_again"] == 0, "off by default"
    code, out, err = run(capsys, *line(six), "--scrub", "50%")
    assert code == 0 and (json.loads(out)["read_again"], json.loads(out)["healed"]) == (3, 1)
    assert "a.png.zarr level 0 shard 0.0" in err and shard.read_bytes() == content
    code, out, err = run(capsys, *line(six), "--scrub", "0.5")
    assert code == 0 and (json.loads(out)["read_again"], json.loads(out)["healed"]) == (3, 1)
    assert "f.png.zarr level 0 shard 0.0 has no receipt" in err, "the other half"
    assert run(capsys, "verify", six / "ledger.db")[0] == 0


def test_damage_that_cannot_be_healed_is_no_success(six, capsys):
    run(capsys, *line(six))
    shard = next(p for p in (six / "out/a.png.zarr/0/c").rglob("*") if p.is_file())
    shard.write_bytes(b"")
    (six / "archive/a.png").unlink()
    for _ in range(2):
        code, out, err = run(capsys, *line(six), "--scrub", "100%")
        assert code == 1 and json.loads(out)["gone"] == 1 and "cannot be healed" in err
