"""Files of weights are written whole, and are on the disk when they are written."""

import pytest

from tests.disk_trace import DiskTrace
from tierscale.models.contract.checkpoints import write_whole


def test_a_file_is_on_the_disk_under_its_name(tmp_path, monkeypatch):
    trace, path = DiskTrace(monkeypatch), tmp_path / "a.safetensors"
    write_whole(path, b"weights")
    trace.durable(path)
    assert path.read_bytes() == b"weights" and [one.name for one in tmp_path.iterdir()] == [
        path.name
    ]


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    write_whole(path, b"weights")

    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, b"others")
    assert path.read_bytes() == b"weights" and [one.name for one in tmp_path.iterdir()] == [
        path.name
    ]
