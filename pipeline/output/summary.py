"""The summary of one image's run: one type, turned into JSON in one place."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tierscale.pipeline.plan.evidence import Audit
from tierscale.pipeline.storage.sidecar import sidecar

STAGES = ("ingest", "score", "enlarge", "stitch", "pyramid", "total")
FILES = {"preview": "preview.png", "routing": "routing.png", "tiles": "tiles.parquet"}


@dataclass(frozen=True, slots=True)
class WorstTile:
    """The tile that differs most from its source.

    decibels: its fidelity. y, x: of its first pixel, in input pixels.
    """

    decibels: float
    y: int
    x: int

    def to_json(self) -> dict[str, Any]:
        """What the summary's JSON says of it."""
        return {"worst_db": round(self.decibels, 2), "y": self.y, "x": self.x}

    def __str__(self) -> str:
        """For people: its place as --region takes it, x first."""
        return f"worst tile {self.decibels:.1f} dB at {self.x}, {self.y}"


@dataclass(frozen=True, slots=True)
class Summary:
    """How a run ended.

    status: "done", "failed" or "interrupted". plan: digest; with shape and dtype None when the run
    ended before there was a plan. shape: (c, H, W) of the output. scale: as a fraction. family: of
    networks, kind: of picture, as in Draft. tiles: made of each tier. cost: multiply-adds.
    cost_share: of the full tier everywhere, None before any. seconds: by STAGES. done_before,
    written: shards. audit: what routes lose against the full tier. fidelity: of the worst tile,
    None where none was compared. files: of the pictures and tables.
    """

    status: str
    output: str
    plan: str | None
    shape: tuple[int, int, int] | None
    dtype: str | None
    scale: str
    family: str | None
    kind: Mapping[str, Any] | None
    tiles: Mapping[str, int]
    cost: float
    cost_share: float | None
    seconds: Mapping[str, float]
    shards: int
    done_before: int
    written: int
    notes: tuple[str, ...]
    error: str | None = None
    audit: Audit | None = None
    fidelity: WorstTile | None = None

    def to_json(self) -> dict[str, Any]:
        """The JSON object that `tierscale upscale --json` prints."""
        folder = sidecar(self.output)
        return {
            "status": self.status,
            "output": self.output,
            "plan": self.plan,
            "shape": None if self.shape is None else list(self.shape),
            "dtype": self.dtype,
            "scale": self.scale,
            "family": self.family,
            "kind": None if self.kind is None else dict(self.kind),
            "fidelity": None if self.fidelity is None else self.fidelity.to_json(),
            "tiles": dict(self.tiles),
            "cost": self.cost,
            "cost_share": self.cost_share,
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
            "shards": {
                "total": self.shards,
                "done_before": self.done_before,
                "written": self.written,
            },
            "files": {name: str(folder / file) for name, file in FILES.items()},
            "audit": None if self.audit is None else self.audit.to_json(),
            "notes": list(self.notes),
            "error": self.error,
        }
