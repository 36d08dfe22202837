"""Rows of tables: a column that is there twice is never read as if it were there once."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tierscale.pipeline.dataset.tables import read_rows
from tierscale.pipeline.errors import Refused

COLUMNS = ("source", "scale")


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("twice", ["source", "scale"])
def test_a_column_twice_is_refused_and_named(tmp_path, suffix, twice):
    path, names = tmp_path / f"m{suffix}", ["source", "scale", twice]
    if suffix == ".csv":
        path.write_text(",".join(names) + "\na.png,2,b.png\n")
    else:
        columns = [pa.array(["a.png"]), pa.array(["2"]), pa.array(["b.png"])]
        pq.write_table(pa.Table.from_arrays(columns, names=names), path)
    with pytest.raises(Refused, match=f"has the column '{twice}' twice; keep"):
        list(read_rows(path, COLUMNS))


@pytest.mark.parametrize("suffix", [".jsonl", ".ndjson"])
def test_a_name_twice_in_a_line_spoils_that_line(tmp_path, suffix):
    path = tmp_path / f"m{suffix}"
    path.write_text('{"source": "a.png", "source": "b.png"}\n{"source": "c.png"}\n')
    first, second = read_rows(path, COLUMNS)
    assert "has the column 'source' twice" in first and second == {"source": "c.png"}


def test_names_that_differ_are_no_repetition(tmp_path):
    (tmp_path / "m.jsonl").write_text(json.dumps({"source": "a", "scale": 2}))
    assert list(read_rows(tmp_path / "m.jsonl", COLUMNS)) == [{"source": "a", "scale": 2}]
