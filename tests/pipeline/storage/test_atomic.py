"""Files are written whole or not at all."""

import errno

import pytest

from tierscale.pipeline.errors import Damaged, DiskFull, Refused
from tierscale.pipeline.storage.atomic import write_bytes
from tierscale.pipeline.storage.failures import storage_failure


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
