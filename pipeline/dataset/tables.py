"""Rows of tables: Parquet, CSV, JSON Lines. What spoils a row spoils no other."""

import csv
import json
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tierscale.pipeline.errors import Refused

# Rows of a Parquet file that are held at a time beside those that were read.
BATCH = 16384
# Values by column, or why a row cannot be read.
Row = dict[str, Any] | str
# Refuses a table with these columns; a row that names its own columns need not have all.
Check = Callable[..., None]


def rows_of(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    """Rows of a file by column name, one after the other, so that a long one takes no memory beside
    them.

    Refused: it is no table, lacks the first of the columns, or has one that is none of them.
    """
    if not path.is_file():
        raise Refused(f"there is no manifest {path}")
    if path.suffix.lower() not in KINDS:
        raise Refused(f"{path} is none of .parquet, .csv, .jsonl")

    def check(names: Collection[str], whole: bool = True) -> None:
        for name in names:
            if name not in columns:
                raise Refused(
                    f"{path} has an unknown column {name!r}; columns are {', '.join(columns)}"
                )
        if whole and columns[0] not in names:
            raise Refused(f"{path} has no column {columns[0]!r}")

    try:
        yield from KINDS[path.suffix.lower()](path, check)
    except (pa.ArrowInvalid, OSError, UnicodeDecodeError, csv.Error) as error:
        raise Refused(f"{path} cannot be read as a table: {str(error).splitlines()[0]}") from error


def _parquet(path: Path, check: Check) -> Iterator[Row]:
    with pq.ParquetFile(path) as file:
        check(file.schema_arrow.names)
        for batch in file.iter_batches(BATCH):
            yield from batch.to_pylist()


def _lines(path: Path) -> Iterator[str | None]:
    """The lines of a text file, without empty ones; None where a line is no UTF-8. Only line feeds
    part them: JSON may hold U+2028.
    """
    with open(path, "rb") as file:
        for number, line in enumerate(file):
            line = line.removeprefix(b"\xef\xbb\xbf") if number == 0 else line
            if line.strip():
                try:
                    yield line.decode().removesuffix("\n").removesuffix("\r")
                except UnicodeDecodeError:
                    yield None


def _json_lines(path: Path, check: Check) -> Iterator[Row]:
    for line in _lines(path):
        try:
            row = None if line is None else json.loads(line)
        except (ValueError, RecursionError) as error:
            yield f"it is no JSON: {error}"
            continue
        if isinstance(row, dict):
            check(row, False)
            yield row
        else:
            yield "it is no JSON object in UTF-8"


def _separated(path: Path, check: Check) -> Iterator[Row]:
    """Comma-separated values with a header. A field in quotes may hold line feeds; one that spoils
    its row spoils that line alone.
    """
    lines, ahead, taken = _lines(path), deque[str | None](), list[str | None]()

    def following() -> Iterator[str]:
        while ahead or (line := next(lines, "")) != "":
            taken.append(ahead.popleft() if ahead else line)
            if taken[-1] is None:
                raise csv.Error("it is no UTF-8")
            yield f"{taken[-1]}\n"

    header = next(lines, None)
    names = next(csv.reader([header]), []) if header else []
    check(names)
    reader = csv.reader(following(), strict=True)
    while True:
        taken.clear()
        try:
            fields = next(reader, None)
            wrong = f"it has {len(fields or ())} fields for {len(names)} columns"
        except csv.Error as error:
            fields, wrong = [], f"it is no line of a table: {error}"
        if fields is None:
            return
        if len(fields) == len(names):
            yield dict(zip(names, fields, strict=True))
        else:
            # What was read beyond the line that is to blame is read again.
            ahead.extendleft(reversed(taken[1:]))
            reader = csv.reader(following(), strict=True)
            yield wrong


KINDS: dict[str, Callable[[Path, Check], Iterator[Row]]] = {
    ".parquet": _parquet,
    ".csv": _separated,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
}
