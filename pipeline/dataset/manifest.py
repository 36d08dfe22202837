"""A table of images to enlarge: Parquet, CSV or JSON Lines, checked row by row."""

import fnmatch
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from tierscale.pipeline.dataset.output_paths import OutputPaths
from tierscale.pipeline.dataset.scan import Problem, as_utf8, refuse, scan
from tierscale.pipeline.dataset.tables import read_rows
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.plan.options import Options, parse_range, parse_scale
from tierscale.pipeline.plan.policies import PARAMETERS, policy_from
from tierscale.pipeline.plan.tiers import parse_tiers
from tierscale.pipeline.storage.atomic import write_bytes


@dataclass(frozen=True, slots=True)
class Row:
    """One image of a manifest; what is None is taken from the job's options.

    tiers: with commas between them. family: auto, clean or photo. budget: share of the full tier's
    cost, up to 1. max_loss: dB. deadline: seconds. threshold: in units of difficulty. priority: the
    highest one goes first. precision: auto, fp32 or bf16. format: of AVAILABLE. range: "LO,HI", the
    values that become black and white. nodata: value of missing pixels. series: which image of a
    file that holds several.
    """

    source: str
    output: str | None = None
    scale: str | None = None
    tiers: str | None = None
    policy: str | None = None
    budget: float | None = None
    max_loss: float | None = None
    deadline: float | None = None
    threshold: float | None = None
    priority: float | None = None
    family: str | None = None
    precision: str | None = None
    range: str | None = None
    nodata: float | None = None
    series: int | None = None
    format: str | None = None

    def options(self, job: Options) -> Options:
        """The job's options with this row's own. Refused: a value that cannot be."""
        for column, values in AVAILABLE.items():
            if (value := getattr(self, column)) not in (None, *values):
                raise Refused(
                    f"a {column} of {value!r} is not available in this version; leave it empty, or"
                    f" write {' or '.join(values)}"
                )
        own: dict[str, Any] = {}
        if self.range is not None:
            own["value_range"] = parse_range(self.range)
        for column in ("nodata", "series"):
            if (value := getattr(self, column)) is not None:
                own[column] = value
        if self.scale is not None:
            own["scale"] = parse_scale(self.scale)
        if self.tiers is not None:
            own["tiers"] = parse_tiers(self.tiers)
        for column in ("family", "precision"):
            if (value := getattr(self, column)) is not None:
                own[column] = value
        numbers = {column: getattr(self, column) for column in PARAMETERS}
        if self.policy is not None or any(value is not None for value in numbers.values()):
            own["policy"] = policy_from(self.policy, numbers, job.policy)
        return job.altered(**own)


# The values, other than none, of columns for which this version has no choice.
AVAILABLE = {"format": ("zarr",)}
# Columns that say how the image is enlarged.
OPTIONS = (
    *("scale", "tiers", "family", "precision", "policy", *PARAMETERS),
    *("range", "nodata", "series", "format"),
)
COLUMNS = ("source", "output", *OPTIONS, "priority")
NUMBERS = (*PARAMETERS, "nodata", "series", "priority")


@dataclass(frozen=True)
class Manifest:
    """Rows of a manifest, in order; None stands for one that cannot be used.

    bad: why not, by row number (the first row is 1). sources: what bad rows name as their source,
    as far as it can be read. root: the folder of the manifest file, or the folder or URI of the
    scan; outputs that rows do not name mirror what lies below it.
    """

    rows: tuple[Row | None, ...]
    bad: Mapping[int, str] = field(default_factory=dict)
    sources: Mapping[int, str] = field(default_factory=dict)
    root: str | Path = "."

    def __iter__(self) -> Iterator[Row]:
        return (row for row in self.rows if row is not None)

    def __len__(self) -> int:
        return len(self.rows)

    def numbered(self) -> Iterator[tuple[int, Row]]:
        """The rows that can be used, with their numbers."""
        return ((number, row) for number, row in enumerate(self.rows, 1) if row is not None)

    @staticmethod
    def scan(
        root: str | Path,
        pattern: str = "*",
        output_root: str | Path | None = None,
        problem: Problem = refuse,
    ) -> "Manifest":
        """All images below a folder or a URI whose name matches `pattern`, in order of their names.

        Outputs mirror the tree under `output_root`. Hidden names, linked folders and our own
        outputs are passed over. problem: called with a sentence on what cannot be listed; without
        it that is refused. Refused: there is no such folder.
        """
        base = str(root).removeprefix("file://")
        base = base if "://" in base else str(Path(base))
        outputs = None if output_root is None else OutputPaths(base, str(output_root))
        rows = []
        for listed in scan(base, problem):
            if fnmatch.fnmatch(listed.source.rsplit("/", 1)[-1], pattern):
                source = listed.source if "://" in base else str(Path(listed.source))
                rows.append(Row(source, None if outputs is None else outputs.of(source)))
        return Manifest(tuple(rows), root=base)

    @staticmethod
    def read(path: str | Path) -> "Manifest":
        """The rows of a manifest file.

        Single bad rows are kept in `bad`. Refused: the file or its columns cannot be used.
        """
        rows: list[Row | None] = []
        bad: dict[int, str] = {}
        sources: dict[int, str] = {}
        for number, values in enumerate(read_rows(Path(path), COLUMNS), start=1):
            try:
                if isinstance(values, str):
                    raise Refused(values)
                rows.append(_parse_row(values, number))
            except Refused as error:
                text = str(error)
                bad[number] = text if text.startswith("row ") else f"row {number}: {text}"
                sources[number] = "" if isinstance(values, str) else _as_text(values.get("source"))
                rows.append(None)
        return Manifest(tuple(rows), bad, sources, Path(path).parent)

    def write(self, path: str | Path) -> None:
        """Write the rows as Parquet, CSV or JSON Lines, by the suffix, whole or not at all.

        Refused: no such suffix, or nothing may be written there. Damaged: the write failed.
        """
        plain = [{name: getattr(row, name) for name in COLUMNS} for row in self]
        kinds = {name: pa.float64() if name in NUMBERS else pa.string() for name in COLUMNS}
        kinds["series"] = pa.int32()
        table = pa.Table.from_pylist(plain, schema=pa.schema(list(kinds.items())))
        suffix = Path(path).suffix.lower()
        sink = pa.BufferOutputStream()
        if suffix == ".parquet":
            pq.write_table(table, sink)
        elif suffix == ".csv":
            pa.csv.write_csv(table, sink)
        elif suffix in (".jsonl", ".ndjson"):
            lines = [json.dumps({k: v for k, v in row.items() if v is not None}) for row in plain]
            sink.write("".join(line + "\n" for line in lines).encode())
        else:
            raise Refused(
                f"the manifest {path} is none of .parquet, .csv, .jsonl; name it by one of them"
            )
        write_bytes(Path(path), sink.getvalue().to_pybytes())


def _as_text(value: Any) -> str:
    """A value of a bad row as text that any table can hold."""
    return "" if value is None else as_utf8(str(value))


def _parse_row(values: Mapping[str, Any], number: int) -> Row:
    """The checked row of a table's values. Refused: the error names row and column."""
    plain = {
        name: _parse_value(name, value, f"row {number}, column {name}")
        for name, value in values.items()
        if value is not None and value != ""
    }
    if not plain.get("source"):
        raise Refused(f"row {number}, column source: it is empty; name an image")
    try:
        _check_options(*map(plain.get, OPTIONS))
    except Refused as error:
        for name in OPTIONS:
            _check_column(number, name, plain.get(name))
        raise Refused(f"row {number}: {error}") from None
    return Row(**plain)


def _parse_value(name: str, value: Any, where: str) -> Any:
    """A number for NUMBERS, text for the other columns. Refused: it is neither."""
    if name in NUMBERS:
        return _parse_number(name, value, where)
    if isinstance(value, list) and name in ("tiers", "range"):
        value = ",".join(str(part) for part in value)
    if not isinstance(value, str | int | float) or as_utf8(str(value)) != str(value):
        raise Refused(f"{where}: {value!r} is not text; write a word or a number")
    return str(value)


def _parse_number(name: str, value: Any, where: str) -> float | int:
    try:
        number = float(value)
        if name != "series":
            return number
        if number == int(number) >= 0:
            return int(number)
    except (TypeError, ValueError, OverflowError):
        pass
    if name == "series":
        raise Refused(
            f"{where}: {value!r} is not a whole number from 0 on; write 0 for the first image"
        )
    raise Refused(f"{where}: {value!r} is not a number; write one such as 0.5")


@lru_cache(maxsize=1024)
def _check_options(*values: Any) -> None:
    """Refuse values of OPTIONS that cannot be; the rows of a manifest have few different ones."""
    Row("", **dict(zip(OPTIONS, values, strict=True))).options(Options())


def _check_column(number: int, name: str, value: Any) -> None:
    """Refuse a value that cannot be, whatever the other columns hold."""
    try:
        replace(Row(""), **{name: value}).options(Options())
    except Refused as error:
        raise Refused(f"row {number}, column {name}: {error}") from None
