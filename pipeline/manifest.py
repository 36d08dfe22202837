"""A table of images to enlarge: Parquet, CSV or JSON Lines, checked row by row."""

import fnmatch
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from pipeline.errors import Refused
from pipeline.plan import Options

SUFFIXES = (".tif", ".tiff", ".svs", ".png", ".jpg", ".jpeg", ".webp", ".npy", ".zarr")


@dataclass(frozen=True, slots=True)
class Row:
    """One image of a manifest; what is None is taken from the job's options. tiers are written with commas between them."""

    source: str
    output: str | None = None
    scale: str | None = None
    tiers: str | None = None
    policy: str | None = None
    budget: float | None = None
    threshold: float | None = None
    priority: float | None = None

    def options(self, given: Options) -> Options:
        """The job's options with this row's own. Refused: a value that cannot be."""
        own: dict[str, Any] = {}
        if self.scale is not None:
            own["scale"] = parse_scale(self.scale)
        if self.tiers is not None:
            own["tiers"] = tuple(part.strip() for part in self.tiers.split(",") if part.strip())
        for name in ("policy", "budget", "threshold"):
            if getattr(self, name) is not None:
                own[name] = getattr(self, name)
        if self.policy is None and (self.budget is not None or self.threshold is not None):
            own["policy"] = "budget" if self.budget is not None else "threshold"
        return replace(given, **own)


COLUMNS = tuple(f.name for f in fields(Row))
NUMBERS = ("budget", "threshold", "priority")


def parse_scale(text: str) -> Fraction:
    """A scale such as 4, 2.7 or 5/2, exact."""
    try:
        return Fraction(str(text).strip())
    except (ValueError, ZeroDivisionError):
        raise Refused(f"a scale {text!r} is neither a number nor a fraction; write 4, 2.7 or 5/2") from None


@dataclass(frozen=True)
class Manifest:
    """Rows of a manifest, in order. bad: rows that cannot be used, with the reason, by row number (the first row is 1)."""

    rows: tuple[Row | None, ...]
    bad: Mapping[int, str] = field(default_factory=dict)
    sources: Mapping[int, str] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Row]:
        return (row for row in self.rows if row is not None)

    def __len__(self) -> int:
        return len(self.rows)

    @staticmethod
    def scan(root: str | Path, pattern: str = "*", output_root: str | Path | None = None) -> "Manifest":
        """All images under `root` whose name matches `pattern`; outputs mirror the tree under `output_root`."""
        base = Path(root)
        if not base.is_dir():
            raise Refused(f"there is no folder {root}")
        rows = []
        for path in _images(base):
            if fnmatch.fnmatch(path.name, pattern):
                inside = path.relative_to(base)
                output = None if output_root is None else str(Path(output_root) / inside.parent / f"{path.name}.zarr")
                rows.append(Row(str(path), output))
        return Manifest(tuple(rows))

    @staticmethod
    def read(path: str | Path) -> "Manifest":
        """The rows of a manifest file. Refused: the file or its columns cannot be used; single bad rows are kept in `bad`."""
        table = _table(Path(path))
        unknown = [name for name in table[0] if name not in COLUMNS]
        if unknown:
            raise Refused(f"{path} has an unknown column {unknown[0]!r}; columns are {', '.join(COLUMNS)}")
        if "source" not in table[0]:
            raise Refused(f"{path} has no column 'source'")
        rows: list[Row | None] = []
        bad: dict[int, str] = {}
        sources: dict[int, str] = {}
        for number, values in enumerate(table[1], start=1):
            sources[number] = str(values.get("source"))
            try:
                row = _row(values, number)
                row.options(Options())
                rows.append(row)
            except Refused as error:
                text = str(error)
                bad[number] = text if text.startswith("row ") else f"row {number}: {text}"
                rows.append(None)
        return Manifest(tuple(rows), bad, sources)

    def write(self, path: str | Path) -> None:
        """Write the rows as Parquet, CSV or JSON Lines, by the suffix."""
        plain = [{name: getattr(row, name) for name in COLUMNS} for row in self]
        kinds = {name: pa.float64() if name in NUMBERS else pa.string() for name in COLUMNS}
        table = pa.Table.from_pylist(plain, schema=pa.schema(list(kinds.items())))
        suffix = Path(path).suffix.lower()
        if suffix == ".parquet":
            pq.write_table(table, path)
        elif suffix == ".csv":
            pa.csv.write_csv(table, path)
        elif suffix in (".jsonl", ".ndjson"):
            lines = [json.dumps({k: v for k, v in row.items() if v is not None}) for row in plain]
            Path(path).write_text("".join(line + "\n" for line in lines))
        else:
            raise Refused(f"{path} is none of .parquet, .csv, .jsonl")


def _images(base: Path) -> Iterator[Path]:
    """Image files and zarr folders below `base`, sorted; nothing inside a zarr."""
    for path in sorted(base.iterdir()):
        if path.suffix.lower() in SUFFIXES:
            yield path
        elif path.is_dir() and not path.is_symlink() and not path.name.endswith(".tierscale"):
            yield from _images(path)


def _table(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """Column names and rows of a file."""
    if not path.is_file():
        raise Refused(f"there is no manifest {path}")
    try:
        if path.suffix.lower() == ".parquet":
            table = pq.read_table(path)
            return table.column_names, table.to_pylist()
        if path.suffix.lower() == ".csv":
            options = pa.csv.ConvertOptions(strings_can_be_null=True, column_types=dict.fromkeys(COLUMNS, pa.string()))
            table = pa.csv.read_csv(path, convert_options=options)
            return table.column_names, table.to_pylist()
        if path.suffix.lower() in (".jsonl", ".ndjson"):
            return _json_lines(path)
    except (pa.ArrowInvalid, OSError, UnicodeDecodeError) as error:
        raise Refused(f"{path} cannot be read as a table: {str(error).splitlines()[0]}") from error
    raise Refused(f"{path} is none of .parquet, .csv, .jsonl")


def _json_lines(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    rows = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError as error:
                raise Refused(f"{path} line {number} is no JSON: {error}") from error
            if not isinstance(row, dict):
                raise Refused(f"{path} line {number} is no JSON object")
            rows.append(row)
    names = list(dict.fromkeys(name for row in rows for name in row)) or ["source"]
    return names, rows


def _row(values: Mapping[str, Any], number: int) -> Row:
    """A checked row; the error names row and column."""
    plain: dict[str, Any] = {}
    for name, value in values.items():
        if value is None or value == "":
            continue
        if name in NUMBERS:
            try:
                plain[name] = float(value)
            except (TypeError, ValueError):
                raise Refused(f"row {number}, column {name}: {value!r} is no number") from None
        elif isinstance(value, list) and name == "tiers":
            plain[name] = ",".join(str(part) for part in value)
        elif isinstance(value, str | int | float):
            plain[name] = str(value)
        else:
            raise Refused(f"row {number}, column {name}: {value!r} is no text")
    if not plain.get("source"):
        raise Refused(f"row {number}, column source: it is empty")
    row = Row(**plain)
    for name in ("scale", "tiers", "policy", "budget", "threshold"):
        if getattr(row, name) is not None:
            try:
                replace(Row(row.source), **{name: getattr(row, name)}).options(Options(threshold=0.0, budget=1.0))
            except Refused as error:
                raise Refused(f"row {number}, column {name}: {error}") from None
    return row
