"""Rows of tables in Parquet, CSV or JSON Lines. A bad row spoils no other."""

import csv
import json
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
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


def read_rows(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    """Rows of a file by column name, one after the other, so that a long table takes little memory.

    columns: all that the table may have; the first one it must have. Refused: the file is no table,
    lacks the first column, or has one twice or one that is not listed.
    """
    if not path.is_file():
        raise Refused(f"there is no manifest {path}; check the path")
    suffix = path.suffix.lower()
    if suffix not in READERS:
        raise Refused(f"the manifest {path} is none of .parquet, .csv, .jsonl; convert it to one")

    def check(names: Collection[str], whole: bool = True) -> None:
        for name in names:
            if name not in columns:
                raise Refused(
                    f"{path} has an unknown column {name!r}; columns are {', '.join(columns)}"
                )
        if whole and columns[0] not in names:
            raise Refused(f"{path} has no column {columns[0]!r}; add it")
        if (twice := _repeated(names)) is not None:
            raise Refused(f"{path} has the column {twice!r} twice; keep the one that counts")

    try:
        yield from READERS[suffix](path, check)
    except (pa.ArrowInvalid, OSError, UnicodeDecodeError, csv.Error) as error:
        raise Refused(
            f"{path} cannot be read as a table ({str(error).splitlines()[0]}); write it again, or"
            " convert it to .csv"
        ) from error


def _repeated(names: Iterable[str]) -> str | None:
    """The first of some names that is there twice; None: none is."""
    counts = Counter(iter(names))  # of a mapping, the values would be taken for counts
    return next((name for name, count in counts.items() if count > 1), None)


def _parquet(path: Path, check: Check) -> Iterator[Row]:
    with pq.ParquetFile(path) as file:
        check(file.schema_arrow.names)
        for batch in file.iter_batches(BATCH):
            yield from batch.to_pylist()


def _read_lines(path: Path) -> Iterator[str | None]:
    """The lines of a text file that are not empty; None stands for one that is not UTF-8.

    Only line feeds end a line: JSON may hold U+2028.
    """
    with open(path, "rb") as file:
        for number, line in enumerate(file):
            line = line.removeprefix(b"\xef\xbb\xbf") if number == 0 else line
            if line.strip():
                yield _decode(line)


def _decode(line: bytes) -> str | None:
    try:
        return line.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        return None


def _json_lines(path: Path, check: Check) -> Iterator[Row]:
    for line in _read_lines(path):
        try:
            row = None if line is None else json.loads(line, object_pairs_hook=_object)
        except Refused as error:
            yield str(error)
            continue
        except (ValueError, RecursionError) as error:
            yield f"it is not JSON ({error}); write one JSON object on each line"
            continue
        if isinstance(row, dict):
            check(row, False)
            yield row
        else:
            yield "it is not a JSON object in UTF-8; write one on each line"


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """The object of a line. Refused: it has a name twice, of which json keeps the last value."""
    if (twice := _repeated(name for name, _ in pairs)) is not None:
        raise Refused(f"it has the column {twice!r} twice; keep the one that counts")
    return dict(pairs)


def _csv(path: Path, check: Check) -> Iterator[Row]:
    """Comma-separated values with a header; a bad row spoils one line, even by an unclosed quote.

    docs/decisions/tables.md tells why this is not pyarrow.csv.
    """
    lines = _LineBuffer(_read_lines(path))
    header = next(lines.source, None)
    names = next(csv.reader([header]), []) if header else []
    check(names)
    while True:
        # A reader that met a bad row is in an unknown state; a new one begins at the next line.
        reader = csv.reader(lines, strict=True)
        while True:
            lines.start_row()
            try:
                fields = next(reader, None)
                fault = f"it has {len(fields or ())} fields for {len(names)} columns"
            except csv.Error as error:
                fields, fault = [], f"it cannot be read as comma-separated values: {error}"
            if fields is None:
                return
            if len(fields) != len(names):
                break
            yield dict(zip(names, fields, strict=True))
        lines.keep_first_of_row()
        yield fault


class _LineBuffer:
    """Lines for a csv.reader, of which those after the first one of a row can be read again."""

    def __init__(self, source: Iterator[str | None]) -> None:
        self.source = source
        self._again = deque[str | None]()
        self._row: list[str | None] = []

    def start_row(self) -> None:
        """The next line is the first one of a row."""
        self._row.clear()

    def keep_first_of_row(self) -> None:
        """Put the lines of the current row back, except for its first one."""
        self._again.extendleft(reversed(self._row[1:]))

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self.source)
        self._row.append(line)
        if line is None:
            raise csv.Error("it is not UTF-8")
        return f"{line}\n"


READERS: dict[str, Callable[[Path, Check], Iterator[Row]]] = {
    ".parquet": _parquet,
    ".csv": _csv,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
}
