"""The report of a night: a page for a person and a table for programs, beside the ledger."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tierscale.pipeline.output.report import page
from tierscale.pipeline.storage.atomic import write_bytes

SOURCES = pa.schema(
    [
        *((name, pa.string()) for name in ("night", "source", "output", "state")),
        ("priority", pa.float64()),
        ("attempts", pa.int32()),
        ("bytes", pa.int64()),
        ("plan", pa.string()),
        ("height", pa.int64()),
        ("width", pa.int64()),
        ("tiles", pa.map_(pa.string(), pa.int64())),
        *((name, pa.float64()) for name in ("cost", "cost_share", "seconds")),
        ("error", pa.string()),
    ]
)
# Rows of each kind that the page shows; the table has all.
SHOWN = 1000
# Rows that are held at a time on their way to the table.
BATCH = 4096
KINDS = {
    "failed": "failed",
    "parked": "parked",
    "done": "done",
    "pending": "waiting",
    "working": "waiting",
}


@dataclass(frozen=True, slots=True)
class Night:
    """What the report says above its rows. name: the date of its morning. counts: as the job sums
    the night up.

    began, ended: seconds since the epoch. notes: what went wrong beside the images.
    """

    name: str
    counts: Mapping[str, int]
    began: float
    ended: float
    notes: Sequence[str] = ()


def write(folder: Path, night: Night, rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Write NIGHT.html and NIGHT.parquet; their paths. rows: of the ledger. Damaged: they cannot be
    written.
    """
    shown: dict[str, list[Mapping[str, Any]]] = {kind: [] for kind in KINDS.values()}
    totals = dict.fromkeys(shown, 0)
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, SOURCES) as writer:
        for batch in batches(rows):
            plain = [{**row, "tiles": list(row["tiles"].items())} for row in batch]
            writer.write_table(pa.Table.from_pylist(plain, schema=SOURCES))
            for row in batch:
                kind = KINDS[row["state"]]
                totals[kind] += 1
                if len(shown[kind]) < SHOWN:
                    shown[kind].append(row)
    began, ended = (
        datetime.fromtimestamp(moment).isoformat(" ", "minutes")
        for moment in (night.began, night.ended)
    )
    html = page(Path(__file__).with_name("night_report.html")).render(
        night=night, shown=shown, totals=totals, began=began, ended=ended
    )
    files = {"html": folder / f"{night.name}.html", "table": folder / f"{night.name}.parquet"}
    write_bytes(files["table"], sink.getvalue().to_pybytes())
    write_bytes(files["html"], html.encode())
    return {name: str(path) for name, path in files.items()}


def batches(rows: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    """Rows by BATCH: a night may have left a million of them."""
    following = iter(rows)
    while batch := list(itertools.islice(following, BATCH)):
        yield batch
