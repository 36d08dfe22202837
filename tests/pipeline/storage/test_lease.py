"""One run at a time writes an output."""

import json
import os
import socket

import pytest

from tierscale.pipeline.errors import Held, Refused
from tierscale.pipeline.storage.lease import LEASE_SECONDS, Lease
from tierscale.pipeline.storage.sidecar import sidecar


class Clock:
    """A clock that tests set."""

    def __init__(self, now):
        self.now = now

    def __call__(self):
        return self.now


def held_by(folder, **owner):
    folder.mkdir(exist_ok=True)
    lease = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": 0.0,
        "renewed": 1000.0,
        "token": "other",
    }
    (folder / "lease.json").write_text(json.dumps({**lease, **owner}))


@pytest.fixture
def folder(tmp_path):
    return sidecar(str(tmp_path / "out.zarr"))


def test_a_lease_is_held_and_given_back(folder):
    with Lease(folder), pytest.raises(Refused, match="is writing"), Lease(folder):
        pass
    assert not (folder / "lease.json").exists()


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
    with Lease(folder, Clock(1001.0)):
        assert json.loads((folder / "lease.json").read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("jump", [-1e6, 0, LEASE_SECONDS - 2])
def test_a_living_owner_is_respected_whatever_the_clock_does(folder, jump):
    held_by(folder, host="elsewhere")
    with (
        pytest.raises(Refused, match=r"process \d+ on elsewhere"),
        Lease(folder, Clock(1000.0 + jump)),
    ):
        pass


def test_a_lease_torn_by_a_crash_is_nobodys(folder):
    folder.mkdir()
    (folder / "lease.json").write_text('{"host": "el')
    with Lease(folder) as lease:
        assert json.loads((folder / "lease.json").read_text())["token"] == lease.owner["token"]


def test_a_lease_that_was_taken_over_is_not_removed(folder):
    with Lease(folder):
        held_by(folder, host="elsewhere")
    assert json.loads((folder / "lease.json").read_text())["host"] == "elsewhere"


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
    first, second = Lease(folder, Clock(1001.0)), Lease(folder, Clock(1001.0))
    judge = Lease._refuse_living

    def judged_late(self, held):
        judge(self, held)
        monkeypatch.undo()
        first.__enter__()

    monkeypatch.setattr(Lease, "_refuse_living", judged_late)
    with pytest.raises(Refused, match=rf"process {os.getpid()} on"), second:
        pass
    assert json.loads((folder / "lease.json").read_text())["token"] == first.owner["token"]
    first.__exit__(None, None, None)
    assert not folder.exists()


def test_a_lease_works_where_there_are_no_hard_links(folder, monkeypatch):
    def link(mine, place):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("tierscale.pipeline.storage.lease.os.link", link)
    with Lease(folder), pytest.raises(Refused, match="is writing"), Lease(folder):
        pass
    assert not folder.exists()


def test_a_lease_in_an_object_store(server):
    now = [1e9]
    folder = sidecar("s3://bucket/out.zarr")
    with Lease(folder, lambda: now[0]):
        with (
            pytest.raises(
                Held,
                match=rf"process {os.getpid()} on .* is writing s3://bucket/out.zarr.tierscale",
            ),
            Lease(folder, lambda: now[0]),
        ):
            pass
        now[0] += LEASE_SECONDS + 1
        with Lease(folder, lambda: now[0]):
            pass
    assert not (folder / "lease.json").exists()
