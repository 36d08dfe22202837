"""Outputs mirror the tree of their sources, wherever the two lie."""

import os

import pytest

from tierscale.pipeline.dataset.output_paths import OutputPaths
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
