"""Outputs mirror the tree of their sources, wherever the two lie."""

import os

import pytest

from tierscale.pipeline.dataset import output_paths
from tierscale.pipeline.dataset.output_paths import (
    OutputPaths,
    TakenOutputs,
    fold,
    folds_case,
)
from tierscale.pipeline.errors import Refused


@pytest.mark.parametrize(
    ("source", "root", "output_root", "output"),
    [
        ("/in/deep/b.png", "/in", "/out", "/out/deep/b.png.zarr"),
        ("/in/deep/b.zarr/", "/in/", "/out/", "/out/deep/b.zarr.zarr"),
        ("/in/b.png", "/", "out", "out/in/b.png.zarr"),
        ("/inside/b.png", "/in", "/out", "/out/inside/b.png.zarr"),
        ("/in/../b.png", "/in", "/out", "/out/b.png.zarr"),
        ("/in/b.png", "s3://bucket/in", "s3://other/out", "s3://other/out/in/b.png.zarr"),
        ("s3://bucket/in/a/b.png", "s3://bucket/in", "/out", "/out/a/b.png.zarr"),
        ("s3://bucket/in//b.png", "s3://bucket/in/", "s3://o/x", "s3://o/x//b.png.zarr"),
        ("s3://bucket/inside/b.png", "s3://bucket/in", "/out", "/out/bucket/inside/b.png.zarr"),
        ("s3://store/../x/a.zarr/", "/in", "/out", "/out/store/x/a.zarr.zarr"),
    ],
)
def test_an_output_mirrors_its_source(source, root, output_root, output):
    assert OutputPaths(root, output_root).of(source) == output


def test_links_are_followed_in_folders_and_not_in_names(tmp_path):
    (tmp_path / "in/deep").mkdir(parents=True)
    (tmp_path / "linked").symlink_to(tmp_path / "in")
    (tmp_path / "in/b.png").symlink_to(tmp_path / "elsewhere.png")
    outputs = OutputPaths(str(tmp_path / "linked"), "/out")
    assert outputs.of(str(tmp_path / "in/b.png")) == "/out/b.png.zarr"
    assert outputs.of(str(tmp_path / "linked/deep/c.png")) == "/out/deep/c.png.zarr"


def test_relative_paths_lie_in_the_folder_of_the_process(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert OutputPaths(".", "out").of("deep/a.png") == "out/deep/a.png.zarr"
    assert OutputPaths("", "out").of(os.path.join(os.getcwd(), "a.png")) == "out/a.png.zarr"


def test_a_named_output_lies_below_the_root_unless_it_is_whole():
    outputs = OutputPaths("/in", "s3://bucket/out")
    assert outputs.of("/in/a.png", "x.zarr") == "s3://bucket/out/x.zarr"
    assert outputs.of("/in/a.png", "/else/x.zarr") == "/else/x.zarr"
    assert outputs.of("/in/a.png", "gs://b/x.zarr") == "gs://b/x.zarr"
    assert OutputPaths("/in", None).of("/in/a.png", "x.zarr") == "x.zarr"
    with pytest.raises(Refused, match="--output-root"):
        OutputPaths("/in", None).of("/in/a.png")


@pytest.fixture
def linked(tmp_path, monkeypatch):
    """A folder `real`, a link `link` to it, and a link to an output."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "alias.zarr").symlink_to("real/x.zarr")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "spelling",
    [
        "{root}/real/x.zarr",
        "{root}//real/x.zarr",
        "{root}/real/./x.zarr",
        "{root}/real/x.zarr/",
        "{root}/link/x.zarr",
        "{root}/alias.zarr",
        "file://{root}/real/x.zarr",
        "real/x.zarr",
        "link/../real/x.zarr",
        "{root}/real/x.zarr/inside.zarr",
        "{root}/link/x.zarr.tierscale/inside.zarr",
    ],
)
def test_a_place_is_taken_however_it_is_written(linked, spelling):
    written = spelling.format(root=linked)
    for first, second in ((f"{linked}/real/x.zarr", written), (written, f"{linked}/real/x.zarr")):
        taken = TakenOutputs()
        assert taken.take(first, 1) is None and taken.take(second, 2) == 1
        assert taken.take(f"{linked}/real/y.zarr", 3) is None


def test_objects_are_told_apart_by_their_names():
    taken = TakenOutputs()
    names = ("s3://b/x.zarr", "s3://b/X.zarr", "s3://c/x.zarr", "gs://b/x.zarr", "s3://b/y/x.zarr")
    assert [taken.take(name, number) for number, name in enumerate(names)] == [None] * len(names)
    for spelling in ("s3://b//x.zarr", "s3://b/x.zarr/", "s3://b/x.zarr/y.zarr"):
        assert taken.take(spelling, 9) == 0


@pytest.mark.parametrize("other", ["A.zarr", "\u00c4.zarr", "A\u0308.zarr"])
def test_case_counts_where_the_disk_says_so(linked, monkeypatch, other):
    for folds in (False, True):
        answers = {str(linked / "real"): folds}  # for the folder that the link leads to
        monkeypatch.setattr(output_paths, "folds_case", answers.__getitem__)
        taken = TakenOutputs()
        assert taken.take(f"{linked}/real/{other.lower()}", 1) is None
        assert taken.take(f"{linked}/link/{other}", 2) == (1 if folds else None)


def test_this_disk_tells_upper_from_lower_case_and_keeps_nothing(linked):
    assert not folds_case(str(linked / "not/yet/there"))
    assert sorted(path.name for path in linked.iterdir()) == ["alias.zarr", "link", "real"]
    assert fold("Stra\u00dfe") == fold("STRASSE") and fold("\u00c4") == fold("a\u0308")


def test_a_disk_that_takes_both_cases_for_one_is_known(linked, monkeypatch):
    there = os.path.exists

    def insensitive(path):
        folder, name = os.path.split(path)
        return there(folder) and fold(name) in {fold(one) for one in os.listdir(folder)}

    monkeypatch.setattr(os.path, "exists", insensitive)
    assert folds_case(str(linked)) and not list(linked.glob(".tierscale*"))
