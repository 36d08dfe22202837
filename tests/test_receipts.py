"""Receipts and leases: whole or not at all, and one run at a time."""

import json
import os
import socket

import pytest

from tierscale.pipeline.errors import Refused
from tierscale.pipeline.output.receipts import Folder, write_bytes
from tierscale.pipeline.storage.lease import LEASE_SECONDS, Lease


class TimeLimit:
    """A clock that tests set."""

    def __init__(self, now):
        self.now = now

    def __call__(self):
        return self.now


def held_by(folder, **owner):
    folder.path.mkdir(exist_ok=True)
    lease = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": 0.0,
        "renewed": 1000.0,
        "token": "other",
    }
    (folder.path / "lease.json").write_text(json.dumps({**lease, **owner}))


@pytest.fixture
def folder(tmp_path):
    return Folder(str(tmp_path / "out.zarr"))


def test_a_lease_is_held_and_given_back(folder):
    with Lease(folder), pytest.raises(Refused, match="is writing"), Lease(folder):
        pass
    assert not (folder.path / "lease.json").exists()


@pytest.mark.parametrize(
    "owner",
    [
        {"pid": 2**22 + 1},
        {"host": "elsewhere", "renewed": 1000.0 - LEASE_SECONDS},
        {"host": "elsewhere", "renewed": 0.0},
    ],
)
def test_a_dead_or_silent_owner_is_replaced(folder, owner):
    held_by(folder, **owner)
    with Lease(folder, TimeLimit(1001.0)):
        assert json.loads((folder.path / "lease.json").read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("jump", [-1e6, 0, LEASE_SECONDS - 2])
def test_a_living_owner_is_respected_whatever_the_clock_does(folder, jump):
    held_by(folder, host="elsewhere")
    with (
        pytest.raises(Refused, match=r"process \d+ on elsewhere"),
        Lease(folder, TimeLimit(1000.0 + jump)),
    ):
        pass


def test_a_lease_torn_by_a_crash_is_nobodys(folder):
    folder.path.mkdir()
    (folder.path / "lease.json").write_text('{"host": "el')
    with Lease(folder):
        pass


def test_a_lease_that_was_taken_over_is_not_removed(folder):
    with Lease(folder):
        held_by(folder, host="elsewhere")
    assert json.loads((folder.path / "lease.json").read_text())["host"] == "elsewhere"


def test_a_lease_appears_whole(folder, monkeypatch):
    seen = []

    def link(mine, place):
        seen.append((place.exists(), json.loads(mine.read_text())["pid"]))
        os.rename(mine, place)

    monkeypatch.setattr("tierscale.pipeline.storage.lease.os.link", link)
    with Lease(folder):
        assert seen == [(False, os.getpid())]


def test_two_runs_that_find_the_same_dead_lease_do_not_both_get_it(folder, monkeypatch):
    held_by(folder, pid=2**22 + 1)
    first, second = Lease(folder, TimeLimit(1001.0)), Lease(folder, TimeLimit(1001.0))
    judge = Lease._refuse_living

    def judged_late(self, held):
        judge(self, held)
        monkeypatch.undo()
        first.__enter__()

    monkeypatch.setattr(Lease, "_refuse_living", judged_late)
    with pytest.raises(Refused, match=rf"process {os.getpid()} on"), second:
        pass
    assert json.loads((folder.path / "lease.json").read_text())["token"] == first.owner["token"]
    first.__exit__(None, None, None)
    assert not folder.path.exists()


def test_a_lease_works_where_there_are_no_hard_links(folder, monkeypatch):
    def link(mine, place):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("tierscale.pipeline.storage.lease.os.link", link)
    with Lease(folder), pytest.raises(Refused, match="is writing"), Lease(folder):
        pass
    assert not folder.path.exists()


def test_a_file_is_whole_or_absent(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "file"
    write_bytes(path, b"one")

    def fail(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.PosixPath.replace", fail)
    with pytest.raises(RuntimeError, match="full"):
        write_bytes(path, b"two")
    assert path.read_bytes() == b"one" and len(list(path.parent.iterdir())) == 1
