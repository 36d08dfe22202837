"""What is out of reach is told from one image that is at fault alone."""

import builtins
import errno
import os
import shutil

import pytest

from tierscale.pipeline.dataset.night import reach
from tierscale.pipeline.dataset.night.ledger import Ledger
from tierscale.pipeline.dataset.night.listing import record_listing
from tierscale.pipeline.dataset.night.reach import (
    OutputWatch,
    folders_above,
    nearest_folder,
    out_of_reach,
)
from tierscale.pipeline.dataset.scan import scan
from tierscale.pipeline.errors import Damaged

NAMES = ("1.png", "2.png", "a/3.png", "a/4.png", "a/deep/5.png", "alone/6.png", "b/7.png")


@pytest.fixture
def archive(tmp_path):
    for name in NAMES:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"12345")
    return tmp_path / "in"


@pytest.fixture
def ledger(archive):
    with Ledger(str(archive.parent / "l.db")) as made:
        record_listing(made, scan(str(archive), pytest.fail), pytest.fail)
        yield made


def unmount(folder):
    shutil.rmtree(folder)
    folder.mkdir()


@pytest.mark.parametrize(
    ("gone", "failed", "found"),
    [
        (["1.png"], "1.png", None),
        (["alone"], "alone/6.png", None),
        (["a/deep"], "a/deep/5.png", None),
        (["a"], "a/deep/5.png", "a"),
        (["a"], "a/3.png", "a"),
        (["a/3.png"], "a/3.png", None),
        (["."], "a/3.png", "."),
        (["."], "1.png", "."),
    ],
)
def test_the_outermost_folder_that_cannot_be_read_is_found(archive, ledger, gone, failed, found):
    for name in gone:
        unmount(archive / name) if (archive / name).is_dir() else (archive / name).unlink()
    wanted = None if found is None else str(archive / found)
    assert out_of_reach(ledger, str(archive), str(archive / failed)) == wanted


def test_a_disk_that_fails_is_as_one_that_is_gone(archive, ledger, monkeypatch):
    whole = builtins.open

    def fails(path, *more, **named):
        if str(path).startswith(str(archive)):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return whole(path, *more, **named)

    monkeypatch.setattr(builtins, "open", fails)
    assert out_of_reach(ledger, str(archive), str(archive / "b/7.png")) == str(archive)


def test_the_only_image_is_gone_with_its_archive_or_alone(tmp_path):
    (tmp_path / "in").mkdir()
    source = tmp_path / "in/a.png"
    source.write_bytes(b"12345")
    with Ledger(str(tmp_path / "l.db")) as ledger:
        record_listing(ledger, scan(str(tmp_path / "in"), pytest.fail), pytest.fail)
        source.unlink()
        assert out_of_reach(ledger, str(tmp_path / "in"), str(source)) == str(tmp_path / "in")
        (tmp_path / "in/notes.txt").write_text("still there")
        assert out_of_reach(ledger, str(tmp_path / "in"), str(source)) is None


def test_few_others_are_tried_and_one_that_answers_is_enough(archive, ledger, monkeypatch):
    tried = []
    monkeypatch.setattr(reach, "readable", lambda path: tried.append(path))
    assert out_of_reach(ledger, str(archive), str(archive / "1.png")) == str(archive)
    assert len(tried) == len(set(tried)) == len(NAMES) - 1
    monkeypatch.setattr(reach, "LOOKS", 2)
    tried.clear()
    out_of_reach(ledger, str(archive), str(archive / "1.png"))
    assert len(tried) == 2


def test_folders_are_named_from_the_inside_to_the_root():
    assert list(folders_above("/in/a/b.png", "/in")) == ["/in/a", "/in"]
    assert list(folders_above("/b.png", "/")) == ["/"]
    assert list(folders_above("s3://b/in/a/c.png", "s3://b/in")) == ["s3://b/in/a", "s3://b/in"]


def begin(output):
    """The folder beside an output that was begun."""
    output.with_name(f"{output.name}.tierscale").mkdir(parents=True)
    (output.with_name(f"{output.name}.tierscale") / "plan.json").touch()


def test_the_disk_of_the_outputs_is_missed_once_it_is_gone(tmp_path):
    root = tmp_path / "out"
    watch = OutputWatch(str(root), [])
    assert not watch.gone(), "nothing was made yet"
    begin(root / "a.zarr")
    watch.note(str(root / "a.zarr"))
    assert not watch.gone(), "the first output makes the folder"
    root.rename(tmp_path / "away")
    assert watch.gone()
    root.mkdir()
    assert watch.gone(), "the mount point is there, and empty"
    begin(root / "b.zarr")
    with pytest.raises(Damaged, match=r"disk of .*out is gone, and .*b\.zarr is not begun"):
        watch.note(str(root / "b.zarr"))
    (root / "a.zarr.tierscale").mkdir()
    assert watch.gone(), "what is written there by mistake does not count"
    shutil.rmtree(root)
    shutil.copytree(tmp_path / "away", root)
    assert not watch.gone() and not watch.gone(), "an automounter may mount it anew"


def test_outputs_in_a_bucket_have_no_disk():
    assert not OutputWatch("s3://bucket/out", ["s3://bucket/out/a.zarr"]).gone()


def test_the_folder_that_is_there_is_found(tmp_path):
    assert nearest_folder(str(tmp_path / "not/yet")) == tmp_path
    (tmp_path / "file").touch()
    assert nearest_folder(str(tmp_path / "file/x")) == tmp_path
