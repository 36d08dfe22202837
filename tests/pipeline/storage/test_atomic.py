"""Files are written whole or not at all, and are on the disk when they are written."""

import errno
import os

import pytest

from tests.disk_trace import DiskTrace
from tierscale.pipeline.errors import Damaged, DiskFull, Refused
from tierscale.pipeline.storage.atomic import write_bytes, write_json
from tierscale.pipeline.storage.failures import storage_failure
from tierscale.pipeline.storage.paths import remove_tree, sync_folder, sync_tree


def test_a_file_is_whole_or_absent(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "file"
    write_bytes(path, b"one")

    def fail(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.PosixPath.replace", fail)
    with pytest.raises(RuntimeError, match="full"):
        write_bytes(path, b"two")
    assert path.read_bytes() == b"one" and len(list(path.parent.iterdir())) == 1


@pytest.mark.parametrize(
    "number, kind, words",
    [
        (errno.ENOSPC, DiskFull, "is full; free some space"),
        (errno.EDQUOT, DiskFull, "is full; free some space"),
        (errno.EROFS, Refused, "cannot be written .*; choose another output"),
        (errno.EACCES, Refused, "cannot be written .*; choose another output"),
        (errno.EIO, Damaged, "cannot be written or read"),
    ],
)
def test_a_failed_write_says_what_would_do(number, kind, words):
    with pytest.raises(kind, match=f"^/disk/out {words}|the disk that holds /disk/out {words}"):
        raise storage_failure("/disk/out", OSError(number, "the reason"))


def test_a_file_is_on_the_disk_when_it_is_written(tmp_path, monkeypatch):
    trace = DiskTrace(monkeypatch)
    path = tmp_path / "new" / "deep" / "file"
    write_bytes(path, b"one")
    durable = trace.durable(path)
    # A new folder is a name in the one above it. Folders are synced at the same time.
    for folder in (tmp_path, tmp_path / "new"):
        assert ("sync", str(folder)) in trace.events
    write_bytes(path, memoryview(b"two"))
    assert path.read_bytes() == b"two" and trace.durable(path) > durable


def test_what_nobody_needs_after_a_power_failure_waits_for_no_disk(tmp_path, monkeypatch):
    trace = DiskTrace(monkeypatch)
    write_json(tmp_path / "lease.json", {"pid": 1}, durable=False)
    assert trace.events == [("name", str(tmp_path / "lease.json"))]


@pytest.mark.parametrize("number, kind", [(errno.ENOSPC, DiskFull), (errno.EIO, Damaged)])
def test_a_disk_that_fails_late_is_told_and_nothing_has_the_name(
    tmp_path, monkeypatch, number, kind
):
    """With delayed allocation a disk is found to be full when the file is synced."""

    def fail(descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(kind):
        write_bytes(tmp_path / "file", b"one")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number, passes", [(errno.EINVAL, True), (errno.EIO, False)])
def test_a_file_system_that_cannot_sync_folders_is_no_error(tmp_path, monkeypatch, number, passes):
    def fail(descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    if passes:
        sync_folder(tmp_path)
    else:
        with pytest.raises(OSError, match="Input/output"):
            sync_folder(tmp_path)


def test_a_temporary_file_that_was_taken_for_a_leftover_is_written_again(tmp_path, monkeypatch):
    replace, taken = os.replace, []

    def take(source, target):
        if not taken:
            taken.append(source)
            os.unlink(source)
        replace(source, target)

    monkeypatch.setattr(os, "replace", take)
    write_bytes(tmp_path / "file", b"one")
    assert taken and [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"one"


def test_a_tree_is_synced_from_its_leaves_and_its_removal_is_synced(tmp_path, monkeypatch):
    for name in ("a/b/c", "a/d"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    trace = DiskTrace(monkeypatch)
    sync_tree(tmp_path / "a")
    assert [path for _, path in trace.events] == [
        str(tmp_path / name) for name in ("a/b/c", "a/b", "a/d", "a")
    ]
    remove_tree(tmp_path / "a")
    assert trace.events[-1] == ("sync", str(tmp_path)) and not (tmp_path / "a").exists()
