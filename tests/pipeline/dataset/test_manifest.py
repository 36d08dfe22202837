"""Manifests: three formats, rows checked, errors that name row and column."""

import json
import os
from dataclasses import fields
from fractions import Fraction

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.disk_trace import DiskTrace
from tests.pipeline.dataset.test_scan import Bucket
from tierscale.pipeline.dataset import scan as scan_module
from tierscale.pipeline.dataset.manifest import COLUMNS, Manifest, Row
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.plan.policies import Budget, Deadline, Full, MaxLoss

ROWS = (
    Row("a.tif", "a.zarr", "5/2", "bicubic,carn-x4", "budget", budget=0.5, priority=2.0),
    Row("c.tif", max_loss=0.02),
    Row("d.tif", policy="deadline", deadline=90.0),
    Row("e.tif", range="0,4095", nodata=-9999.0, series=2),
    Row("f.tif", family="auto", precision="fp32", format="zarr"),
    Row("b.png"),
)


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_a_manifest_is_written_whole_and_is_on_the_disk(tmp_path, monkeypatch, suffix):
    trace, path = DiskTrace(monkeypatch), tmp_path / f"a.{suffix}"
    Manifest(ROWS).write(path)
    assert trace.durable(path)


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_what_is_written_is_read(tmp_path, suffix):
    path = tmp_path / f"m{suffix}"
    Manifest(ROWS).write(path)
    assert tuple(Manifest.read(path)) == ROWS
    assert Manifest.read(path).bad == {}


def test_rows_have_their_own_options():
    options = ROWS[0].options(Options())
    assert (options.scale, options.tiers) == (Fraction(5, 2), ("bicubic", "carn-x4"))
    assert options.policy == Budget(0.5)
    assert ROWS[-1].options(Options(tile=64)) == Options(tile=64)


def test_a_column_of_a_policy_implies_it():
    lossy, timed = (row.options(Options(policy=Full())) for row in ROWS[1:3])
    assert (lossy.policy, timed.policy) == (MaxLoss(0.02), Deadline(90.0))


def test_a_row_says_what_part_of_its_file_is_meant_and_what_its_values_mean(tmp_path):
    options = ROWS[3].options(Options(nodata=1.0))
    assert (options.value_range, options.nodata, options.series) == ((0.0, 4095.0), -9999.0, 2)
    (tmp_path / "m.jsonl").write_text('{"source": "a", "range": [0, 1.5], "series": "1"}')
    (row,) = Manifest.read(tmp_path / "m.jsonl")
    assert row.options(Options()).value_range == (0.0, 1.5) and row.series == 1


def test_columns_are_those_of_the_documents():
    assert (
        *("source", "output", "scale", "tiers", "family", "precision", "policy", "budget"),
        *("max_loss", "deadline", "threshold", "range", "nodata", "series", "format", "priority"),
    ) == COLUMNS
    assert {one.name for one in fields(Row)} == set(COLUMNS)


def test_a_row_has_its_own_precision():
    assert Row("a.tif", precision="bf16").options(Options(precision="fp32")).precision == "bf16"
    assert Row("a.tif").options(Options(precision="fp32")).precision == "fp32"
    with pytest.raises(Refused, match="there is no precision 'fp64'"):
        Row("a.tif", precision="fp64").options(Options())


@pytest.mark.parametrize(("column", "value"), [("format", "tif")])
def test_what_this_version_has_not_is_refused_by_row_and_column(tmp_path, column, value):
    (tmp_path / "m.jsonl").write_text(json.dumps({"source": "a.tif", column: value}))
    text = Manifest.read(tmp_path / "m.jsonl").bad[1]
    assert text.startswith(f"row 1, column {column}: a {column} of '{value}' is not available")


def test_a_bad_row_is_named_and_the_others_stay(tmp_path):
    path = tmp_path / "m.jsonl"
    lines = [
        {"source": "a.tif"},
        {"source": "b.tif", "scale": "x"},
        {"source": ""},
        {"source": "c.tif", "budget": "much"},
        {"source": "d.tif"},
    ]
    path.write_text("\n".join(json.dumps(line) for line in lines))
    manifest = Manifest.read(path)
    assert [row.source for row in manifest] == ["a.tif", "d.tif"]
    assert manifest.bad[2].startswith("row 2, column scale: a scale 'x'")
    assert manifest.bad[3] == "row 3, column source: it is empty; name an image"
    assert manifest.bad[4] == "row 4, column budget: 'much' is not a number; write one such as 0.5"


def test_a_line_that_is_no_json_is_one_bad_row(tmp_path):
    path = tmp_path / "m.jsonl"
    deep = b"[" * 100_000
    good = json.dumps({"source": "b\u2028c.tif"}, ensure_ascii=False).encode()
    path.write_bytes(
        b"\n".join(
            [
                b'{"source": "a.tif"',
                b"7",
                b'{"source": "\xff.tif"}',
                deep,
                good,
                b'{"source": "\\ud800"}',
                b"",
                b"{}",
            ]
        )
    )
    manifest = Manifest.read(path)
    assert [row.source for row in manifest] == ["b\u2028c.tif"] and len(manifest) == 7
    assert list(manifest.bad) == [1, 2, 3, 4, 6, 7]
    assert manifest.bad[1].startswith("row 1: it is not JSON") and "UTF-8" in manifest.bad[3]
    assert manifest.sources == {1: "", 2: "", 3: "", 4: "", 6: "?", 7: ""}


def test_a_line_that_is_no_row_of_the_table_is_one_bad_row(tmp_path):
    path = tmp_path / "m.csv"
    lines = [
        b"\xef\xbb\xbfsource,output",
        b"a.tif,a.zarr,more",
        b"b.tif",
        b'"c\nd.tif",c.zarr',
        b"\xff,x",
        b'"e.tif,e.zarr',
        b"f.tif,\r",
        b'"g""h.tif",',
    ]
    path.write_bytes(b"\n".join(lines))
    manifest = Manifest.read(path)
    assert tuple(manifest) == (Row("c\nd.tif", "c.zarr"), Row("f.tif"), Row('g"h.tif'))
    assert manifest.bad[1] == "row 1: it has 3 fields for 2 columns" and sorted(manifest.bad) == [
        1,
        2,
        4,
        5,
    ]


def test_a_scale_with_an_exponent_is_refused_at_once(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text(
        '{"source": "a.tif", "scale": "1e999999999"}\n{"source": "b.tif", "budget": 1'
        + "0" * 400
        + "}"
    )
    assert sorted(Manifest.read(path).bad) == [1, 2]


@pytest.mark.parametrize(
    ("row", "column"),
    [
        ({"scale": "0"}, "scale"),
        ({"scale": "-4"}, "scale"),
        ({"policy": "luck"}, "policy"),
        ({"budget": 1.5}, "budget"),
        ({"threshold": -1}, "threshold"),
        ({"max_loss": -0.1}, "max_loss"),
        ({"deadline": 0}, "deadline"),
        ({"deadline": "6h"}, "deadline"),
        ({"range": "5,1"}, "range"),
        ({"range": "white"}, "range"),
        ({"nodata": "none"}, "nodata"),
        ({"series": -1}, "series"),
        ({"series": 1.5}, "series"),
        ({"series": "nan"}, "series"),
    ],
)
def test_values_that_cannot_be_name_their_column(tmp_path, row, column):
    path = tmp_path / "m.jsonl"
    path.write_text(json.dumps({"source": "a.tif", **row}))
    assert f"row 1, column {column}:" in Manifest.read(path).bad[1]


def test_an_unknown_column_is_refused(tmp_path):
    pq.write_table(pa.table({"source": ["a"], "scael": [4]}), tmp_path / "m.parquet")
    with pytest.raises(Refused, match="unknown column 'scael'; columns are source, output"):
        Manifest.read(tmp_path / "m.parquet")


@pytest.mark.parametrize("name", ["missing.csv", "m.txt"])
def test_what_is_no_manifest_is_refused(tmp_path, name):
    (tmp_path / "m.txt").write_text("source\na")
    with pytest.raises(Refused):
        Manifest.read(tmp_path / name)


def make(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")


def test_a_scan_finds_images_and_mirrors_the_tree(tmp_path, monkeypatch):
    make(tmp_path, "in/a.tif", "in/deep/b.PNG", "in/notes.txt", "in/c.zarr/zarr.json")
    found = Manifest.scan(tmp_path / "in", "*", output_root=tmp_path / "out")
    assert found.root == str(tmp_path / "in")
    assert [row.output.removeprefix(str(tmp_path)) for row in found] == [
        "/out/a.tif.zarr",
        "/out/c.zarr.zarr",
        "/out/deep/b.PNG.zarr",
    ]
    assert [row.source for row in Manifest.scan(tmp_path / "in", "*.tif")] == [
        str(tmp_path / "in/a.tif")
    ]
    monkeypatch.chdir(tmp_path / "in")
    (row,) = Manifest.scan(".", "*.tif", output_root="../out")
    assert (row.source, row.output) == ("a.tif", "../out/a.tif.zarr")


def test_a_scan_takes_no_outputs_of_ours_as_sources(tmp_path):
    make(
        tmp_path,
        "in/a.tif",
        "in/a.tif.zarr/zarr.json",
        "in/a.tif.zarr.tierscale/preview.png",
        "in/.trash/b.tif",
        "in/theirs.zarr/zarr.json",
    )
    assert [row.source.removeprefix(str(tmp_path)) for row in Manifest.scan(tmp_path / "in")] == [
        "/in/a.tif",
        "/in/theirs.zarr",
    ]


def test_a_scan_of_an_object_store_mirrors_it(monkeypatch):
    monkeypatch.setattr(scan_module, "ObjectPath", Bucket)
    (row,) = Manifest.scan("s3://bucket/in", "*.PNG", output_root="/out")
    assert (row.source, row.output) == ("s3://bucket/in/deep/B.PNG", "/out/deep/B.PNG.zarr")


def test_what_a_scan_cannot_list_is_refused_or_reported(tmp_path):
    make(tmp_path, "in/a.tif")
    with open(os.fsencode(tmp_path) + b"/in/bad\xff.tif", "wb"):
        pass
    with pytest.raises(Refused, match=r"bad\?.tif is not UTF-8"):
        Manifest.scan(tmp_path / "in")
    problems = []
    assert len(Manifest.scan(tmp_path / "in", problem=problems.append)) == 1 == len(problems)
    with pytest.raises(Refused, match=r"there is no folder .*none; check"):
        Manifest.scan(tmp_path / "none")


def test_a_quote_that_is_never_closed_spoils_one_row_of_a_long_table(tmp_path):
    path = tmp_path / "m.csv"
    rows = [f"{number}.tif,{number}.zarr" for number in range(20_000)]
    rows[70] = '"open.tif,x.zarr'
    rows[90] = '"a" b.tif,x.zarr'
    path.write_text("\n".join(["source,output", *rows]))
    manifest = Manifest.read(path)
    assert list(manifest.bad) == [71, 91] and len(manifest) == 20_000
    assert manifest.rows[71] == Row("71.tif", "71.zarr")
