"""What is said of a night: a page for a person, a table for programs, a sentence at the end."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tierscale.pipeline.dataset.night.listing import Changes
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
        ("family", pa.string()),
        ("notes", pa.string()),
        ("loss_db", pa.float64()),
        ("loss_high", pa.float64()),
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
class NightSummary:
    """What the report says above its rows.

    name: the date on which the night ends. counts: numbers of images by what became of them.
    began, ended: seconds since the epoch. notes: what went wrong beside the images.
    """

    name: str
    counts: Mapping[str, int]
    began: float
    ended: float
    notes: Sequence[str] = ()


def write_report(
    folder: Path, night: NightSummary, rows: Iterable[Mapping[str, Any]]
) -> dict[str, str]:
    """Write NIGHT.html and NIGHT.parquet; their paths. rows: as of Ledger.report_rows.

    Damaged: they cannot be written.
    """
    shown: dict[str, list[Mapping[str, Any]]] = {kind: [] for kind in KINDS.values()}
    totals = dict.fromkeys(shown, 0)
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, SOURCES) as writer:
        for batch in batches(rows):
            plain = [{**row, "tiles": list(row["tiles"].items())} for row in batch]
            writer.write_table(pa.Table.from_pylist(plain, schema=SOURCES))
            _count(batch, shown, totals)
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


def _count(
    rows: Iterable[Mapping[str, Any]],
    shown: Mapping[str, list[Mapping[str, Any]]],
    totals: dict[str, int],
) -> None:
    """Count rows by kind, and keep the first SHOWN ones of each for the page."""
    for row in rows:
        kind = KINDS[row["state"]]
        totals[kind] += 1
        if len(shown[kind]) < SHOWN:
            shown[kind].append(row)


def batches(rows: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    """Rows by BATCH: a night may have left a million of them."""
    rest = iter(rows)
    while batch := list(itertools.islice(rest, BATCH)):
        yield batch


def night_counts(changes: Changes, counts: Mapping[str, int]) -> dict[str, int]:
    """The night in numbers of images.

    failed: on this night, those that were parked by it included. left: those in doubt included, and
    those that were still being written.
    """
    return asdict(changes) | {
        "done": counts["worked"],
        "failed": counts["wrong"],
        "parked": counts["parked"],
        "left": counts["left"] + changes.undecided,
    }


def error_sentence(
    status: str,
    counts: Mapping[str, int],
    notes: Sequence[str],
    failure: tuple[str, str] | None,
    report: str,
) -> str | None:
    """Why a night did not end well, in one sentence; None for one that did.

    failure: an image that failed, and why. report: path of the page with the whole report.
    """
    if status == "done":
        return None
    if notes:
        return notes[0]
    if status == "failed" and failure is not None:
        source, reason = failure
        first = reason if source in reason else f"{source}: {reason}"
        return (
            f"images that failed: {counts['failed']}, the first: {first}; {report} lists all of "
            "them, and they are tried on three nights before they are parked"
        )
    if status == "left" and counts["left"] == counts["unsettled"]:
        return (
            f"images that may still be being written, and are left for another night:"
            f" {counts['left']}"
        )
    why = "stopped" if status == "interrupted" else "the window closed"
    return f"{why}, and images that are left: {counts['left']}; to resume, run the same command"


def summary_lines(summary: Mapping[str, Any]) -> list[str]:
    """The summary of a night for a person, in lines."""
    listed = (
        f"{summary['new']} new, {summary['changed']} changed, {summary['untouched']} untouched,"
        f" {summary['gone']} no longer there"
    )
    worked = (
        f"{summary['done']} enlarged, {summary['failed']} failed, {summary['left']} left,"
        f" {summary['parked']} parked"
    )
    lines = [f"the night to {summary['night']}: {listed}; {worked}"]
    if summary["unsettled"]:
        lines.append(f"  unsettled        {summary['unsettled']} may still be being written")
    if summary["read_again"]:
        read = f"{summary['read_again']} outputs, {summary['healed']} shards made again"
        lines.append(f"  read again       {read}")
    return [*lines, f"  report           {summary['report']['html']}"]
