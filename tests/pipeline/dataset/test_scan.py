"""The scan of an archive: its images and nothing else, in folders and object stores alike."""

import errno
import os
from pathlib import Path

import pytest

from tests.pipeline.storage.conftest import server as server
from tierscale.pipeline.dataset import scan as scan_module
from tierscale.pipeline.dataset.night.listing import Late
from tierscale.pipeline.dataset.scan import (
    BLOCK,
    content_sha256,
    look,
    missing_outputs,
    scan,
)
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.storage.object_path import Listed, ObjectPath

TREE = (
    "a.tif",
    "deep/B.PNG",
    "deep/.hidden.png",
    "deep/x.ZARR/zarr.json",
    "deep/x.ZARR/inner.zarr/c/0/0",
    "notes.txt",
    ".snapshot/a.tif",
    "x.zarr/zarr.json",
    "x.zarr/picture.png",
    "ours.zarr/zarr.json",
    "ours.zarr/picture.png",
    "ours.zarr.tierscale/preview.png",
    "ours.zarr.tierscale/source.zarr/zarr.json",
    "half.zarr.tierscale/preview.png",
    "folder.tif/c.jpg",
)
IMAGES = ["a.tif", "deep/B.PNG", "deep/x.ZARR", "folder.tif/c.jpg", "x.zarr"]


def make(root, names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"12345")


class Bucket:
    """An object store's listing of the names of a tree."""

    def __init__(self, uri):
        self.uri = uri

    def listed(self):
        return [Listed(name, 5, f"etag of {name}", 0.0) for name in sorted(TREE)]

    def exists(self):
        return False


def test_folders_and_object_stores_hold_the_same_images(tmp_path, monkeypatch):
    make(tmp_path, TREE)
    assert [item.source for item in scan(str(tmp_path), pytest.fail)] == [
        f"{tmp_path}/{name}" for name in IMAGES
    ]
    monkeypatch.setattr(scan_module, "ObjectPath", Bucket)
    found = {item.source: item for item in scan("s3://bucket/in", pytest.fail)}
    assert list(found) == [f"s3://bucket/in/{name}" for name in IMAGES]
    assert found["s3://bucket/in/a.tif"].etag == "etag of a.tif"
    assert found["s3://bucket/in/x.zarr"].bytes == 10


@pytest.mark.parametrize("inside", ["ours.zarr", "ours.zarr/0", "ours.zarr.tierscale"])
def test_a_scan_inside_an_output_of_ours_is_refused(tmp_path, inside):
    make(tmp_path, (*TREE, "ours.zarr/0/picture.png"))
    with pytest.raises(Refused, match=r"ours\.zarr, which is an output of tierscale; name"):
        list(scan(str(tmp_path / inside), pytest.fail))
    assert list(scan(str(tmp_path / "x.zarr"), pytest.fail)), "the inside of another zarr is not"


def test_a_scan_tells_sizes_follows_no_folder_and_names_what_it_leaves_out(tmp_path):
    make(tmp_path, (*TREE, "elsewhere/c.jpg"))
    (tmp_path / "deep/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "deep/dangling.png").symlink_to(tmp_path / "nowhere.png")
    with open(os.fsencode(tmp_path) + b"/bad\xff.tif", "wb"):
        pass
    problems = []
    found = {
        os.path.relpath(item.source, tmp_path): item.bytes
        for item in scan(str(tmp_path), problems.append)
    }
    assert found == {
        **dict.fromkeys(IMAGES, 5),
        "x.zarr": 10,
        "deep/x.ZARR": 10,
        "elsewhere/c.jpg": 5,
        "deep/dangling.png": 0,
    }
    assert len(problems) == 1 and "bad?.tif is not UTF-8" in problems[0]
    with pytest.raises(Refused, match="no folder"):
        list(scan(str(tmp_path / "none"), problems.append))
    assert content_sha256(str(tmp_path / "x.zarr")) is None
    assert content_sha256(str(tmp_path / "a.tif")) == content_sha256(
        str(tmp_path / "elsewhere/c.jpg")
    )


def test_a_checksum_is_given_up_between_two_blocks(tmp_path):
    (tmp_path / "a.tif").write_bytes(bytes(3 * BLOCK))
    calls = []

    def check():
        calls.append(1)
        if len(calls) == 3:
            raise Late

    with pytest.raises(Late):
        content_sha256(str(tmp_path / "a.tif"), check)
    assert len(calls) == 3


def test_outputs_are_looked_for_folder_by_folder(tmp_path, monkeypatch):
    for name in (
        "a.zarr",
        "a.zarr.tierscale",
        "bare.zarr",
        "zarrless.zarr.tierscale",
        "deep/b.zarr",
        "deep/b.zarr.tierscale",
    ):
        (tmp_path / name).mkdir(parents=True)
    names = (
        "a.zarr",
        "bare.zarr",
        "zarrless.zarr",
        "none.zarr",
        "deep/b.zarr",
        "nowhere/c.zarr",
        "nowhere/d.zarr",
    )
    listed, problems = [], []
    whole = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda self: (listed.append(self), whole(self))[1])
    found = {
        os.path.relpath(output, tmp_path)
        for output in missing_outputs([str(tmp_path / name) for name in names], problems.append)
    }
    assert (
        found == {"bare.zarr", "zarrless.zarr", "none.zarr", "nowhere/c.zarr", "nowhere/d.zarr"}
        and not problems
    )
    assert len(listed) == 3, "a folder is listed once, however many outputs belong there"

    def denied(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", denied)
    assert (
        not list(missing_outputs([str(tmp_path / "a.zarr")], problems.append))
        and "cannot be listed (Permission denied)" in problems[0]
    )


@pytest.mark.skipif("TIERSCALE_S3_ENDPOINT" in os.environ, reason="the bucket is our own server's")
def test_a_second_look_sees_what_the_listing_saw(tmp_path, server):
    make(tmp_path, TREE)
    for name in TREE:
        ObjectPath(f"s3://bucket/in/{name}").write_bytes(b"12345")
    for root in (str(tmp_path), "s3://bucket/in/"):
        listed = list(scan(root, pytest.fail))
        assert len(listed) == len(IMAGES)
        assert [look(item.source, root) for item in listed] == listed
    before = look("s3://bucket/in/x.zarr", "s3://bucket/in")
    ObjectPath("s3://bucket/in/x.zarr/c/0/0").write_bytes(b"1")
    assert look("s3://bucket/in/x.zarr", "s3://bucket/in").etag != before.etag
    assert look(str(tmp_path / "none.tif"), str(tmp_path)) is None
    assert look("s3://bucket/in/none.tif", "s3://bucket/in") is None


def test_what_cannot_be_looked_at_is_told_and_what_vanished_is_not(tmp_path, monkeypatch):
    """A disk that fails changes nothing of what is known."""
    make(tmp_path, ("a.tif", "b.tif", "c.tif"))
    whole, problems = os.stat, []

    def fails(path, *more, **named):
        if str(path).endswith("a.tif"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if str(path).endswith("b.tif"):
            Path(path).unlink(missing_ok=True)
        return whole(path, *more, **named)

    monkeypatch.setattr(os, "stat", fails)
    found = [os.path.basename(item.source) for item in scan(str(tmp_path), problems.append)]
    assert found == ["c.tif"] and len(problems) == 1
    assert "a.tif cannot be looked at (Input/output error)" in problems[0]
