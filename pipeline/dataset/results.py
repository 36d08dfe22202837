"""What tables say of an enlarged image, and the result table of a manifest."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tierscale.pipeline.dataset.runner import Enlarged, Outcome, QueuedJob
from tierscale.pipeline.output.summary import Summary
from tierscale.pipeline.storage.atomic import write_bytes
from tierscale.pipeline.storage.path_policy import public
from tierscale.pipeline.storage.paths import place

RESULT = pa.schema(
    [
        ("row", pa.int32()),
        ("source", pa.string()),
        ("output", pa.string()),
        ("status", pa.string()),
        ("height", pa.int64()),
        ("width", pa.int64()),
        ("channels", pa.int32()),
        ("tiles", pa.map_(pa.string(), pa.int64())),
        ("cost", pa.float64()),
        ("cost_share", pa.float64()),
        ("seconds", pa.float64()),
        ("error", pa.string()),
        ("plan", pa.string()),
        ("family", pa.string()),
        ("notes", pa.list_(pa.string())),
    ]
)


@dataclass(frozen=True, slots=True)
class ImageResult:
    """What tables say of an enlarged image.

    plan: digest. channels, height, width: of the output, in pixels. tiles: number for each tier.
    cost: multiply-adds. cost_share: of what the full tier everywhere would cost. seconds: in all.
    family: of the networks, by their cards, or None. notes: sentences for a person. loss: dB below
    the full tier everywhere, as expected and at most, or None where it is not known.
    """

    plan: str
    channels: int
    height: int
    width: int
    tiles: Mapping[str, int]
    cost: float
    cost_share: float | None
    seconds: float
    family: str | None = None
    notes: tuple[str, ...] = ()
    loss: tuple[float, float] | None = None

    @staticmethod
    def from_summary(summary: Summary) -> "ImageResult":
        """The result in the summary of a finished image."""
        channels, height, width = summary.shape or (0, 0, 0)
        return ImageResult(
            plan=summary.plan or "",
            channels=channels,
            height=height,
            width=width,
            tiles=summary.tiles,
            cost=summary.cost,
            cost_share=summary.cost_share,
            seconds=round(summary.seconds["total"], 3),
            family=summary.family,
            notes=summary.notes,
            loss=None if summary.audit is None else (summary.audit.loss_db, summary.audit.high),
        )


@dataclass(frozen=True, slots=True)
class ResultRow:
    """A row of RESULT.

    number: of the row in the manifest. status: done, skipped, failed or quarantined.
    """

    number: int
    source: str
    output: str | None
    status: str
    image: ImageResult | None = None
    error: str | None = None

    @staticmethod
    def of(job: QueuedJob[int], outcome: Outcome) -> "ResultRow":
        """The row of a job that ended."""
        if isinstance(outcome, Enlarged):
            image = ImageResult.from_summary(outcome.summary)
            return ResultRow(job.key, job.image.source, job.image.output, outcome.status, image)
        status = "quarantined" if outcome.status == "quarantined" else "failed"
        return ResultRow(job.key, job.image.source, job.image.output, status, error=outcome.error)

    def to_record(self) -> dict[str, Any]:
        """The row's values by column; addresses are without what they may hold of secrets."""
        image = self.image
        return {
            "row": self.number,
            "source": public(self.source),
            "output": None if self.output is None else public(self.output),
            "status": self.status,
            "height": image and image.height,
            "width": image and image.width,
            "channels": image and image.channels,
            "tiles": list(image.tiles.items()) if image else [],
            "cost": image and image.cost,
            "cost_share": image and image.cost_share,
            "seconds": image and image.seconds,
            "error": self.error,
            "plan": image and image.plan,
            "family": image and image.family,
            "notes": list(image.notes) if image else [],
        }


def result_table(rows: Iterable[ResultRow]) -> pa.Table:
    """The rows as a table with the schema RESULT, in order of their numbers."""
    ordered = sorted(rows, key=lambda row: row.number)
    return pa.Table.from_pylist([row.to_record() for row in ordered], schema=RESULT)


def write_table(path: str, table: pa.Table) -> None:
    """Write a table as Parquet, whole or not at all. Damaged, Refused: it cannot be written."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    write_bytes(place(path), sink.getvalue().to_pybytes())
