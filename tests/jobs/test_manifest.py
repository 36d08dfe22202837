"""`tierscale manifest`: a table of the images in a folder, that `tierscale dataset` takes."""

import json
import os

import pytest

from tests.commands import check_refusal, tierscale
from tests.jobs.nights import picture
from tierscale.pipeline.dataset.manifest import Manifest


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_a_table_of_a_folder_is_enlarged(archive, capsys, monkeypatch, suffix):
    monkeypatch.chdir(archive)
    table = f"m{suffix}"
    code, out, _ = tierscale(capsys, "manifest", "archive", "-o", table, "--output-root", "out")
    assert code == 0 and out == f"{table}: 2 images\n"
    rows = list(Manifest.read(archive / table))
    assert [row.source for row in rows] == [
        str(archive / "archive/a.png"), str(archive / "archive/deep/b.png"),
    ]  # fmt: skip
    assert rows[1].output == str(archive / "out/deep/b.png.zarr"), "wherever it is read"
    options = ("--output-root", "out", "--tiers", "bicubic", "--ray", "none", "--json")
    code, out, err = tierscale(capsys, "dataset", table, *options)
    found = json.loads(out)
    assert code == 0 and found["done"] == 2, err
    assert found["results"] == str(archive / "out/results.parquet"), "an absolute path"
    assert (archive / "out/deep/b.png.zarr/zarr.json").is_file()


def test_a_pattern_chooses(archive, capsys):
    picture(archive / "archive/c.tif", 20)
    command = ("manifest", archive / "archive", "-o", archive / "m.csv", "--pattern", "*.tif")
    code, out, _ = tierscale(capsys, *command, "--json")
    assert code == 0 and json.loads(out) == {
        "status": "done",
        "images": 1,
        "manifest": str(archive / "m.csv"),
        "problems": [],
        "error": None,
    }
    (row,) = Manifest.read(archive / "m.csv")
    assert row.source.endswith("c.tif") and row.output is None


def test_a_table_that_somebody_may_have_edited_is_not_replaced_unasked(archive, capsys):
    (archive / "m.csv").write_text("source\nmine.png\n")
    command = ("manifest", archive / "archive", "-o", archive / "m.csv")
    check_refusal(tierscale(capsys, *command), 2, "m.csv exists", "--overwrite")
    assert (archive / "m.csv").read_text() == "source\nmine.png\n"
    assert tierscale(capsys, *command, "--overwrite")[0] == 0
    assert len(Manifest.read(archive / "m.csv")) == 2


@pytest.mark.parametrize(
    ("folder", "table", "more", "words"),
    [
        ("nowhere", "m.csv", (), "there is no folder"),
        ("archive", "m.txt", (), "does not end in .parquet, .csv or .jsonl"),
        ("archive", "no/m.csv", (), "there is no folder for the manifest"),
        ("archive", "s3://b/m.csv", (), "not a local path"),
        ("archive", "m.csv", ("--pattern", "*.jp2"), "no images below"),
        ("s3://key:secret@b/a", "m.csv", (), "holds a secret"),
    ],
)
def test_what_cannot_be_is_refused_before_a_table_is_written(
    archive, capsys, monkeypatch, folder, table, more, words
):
    monkeypatch.chdir(archive)
    check_refusal(tierscale(capsys, "manifest", folder, "-o", table, *more), 2, words)
    assert not (archive / "m.csv").exists()


def test_what_cannot_be_listed_is_told_and_the_rest_is_written(archive, capsys):
    with open(os.fsencode(archive / "archive") + b"/bad\xff.tif", "wb"):
        pass
    command = ("manifest", archive / "archive", "-o", archive / "m.csv", "--json")
    code, out, err = tierscale(capsys, *command)
    assert code == 1 and "bad?.tif is not UTF-8" in err
    assert json.loads(out)["status"] == "failed" and len(Manifest.read(archive / "m.csv")) == 2
