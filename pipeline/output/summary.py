"""What is told of one image's run: one type, turned into JSON in one place."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tierscale.pipeline.output.receipts import Receipt
from tierscale.pipeline.output.store import shard_keys
from tierscale.pipeline.plan.plan import Plan
from tierscale.pipeline.routing.costs import cost_share, full_cost
from tierscale.pipeline.storage.sidecar import sidecar

STAGES = ("ingest", "score", "enlarge", "stitch", "pyramid", "total")
FILES = {"preview": "preview.png", "routing": "routing.png", "tiles": "tiles.parquet"}


@dataclass(frozen=True, slots=True)
class Summary:
    """How a run ended.

    status: "done", "failed" or "interrupted". plan: digest; with shape and dtype None when the run
    ended before there was a plan. shape: (c, H, W) of the output. scale: as a fraction. tiles: made
    of each tier. cost: multiply-adds. cost_share: of the full tier everywhere, None before any.
    seconds: by STAGES. done_before, written: shards. files: of the pictures and tables.
    """

    status: str
    output: str
    plan: str | None
    shape: tuple[int, int, int] | None
    dtype: str | None
    scale: str
    tiles: Mapping[str, int]
    cost: float
    cost_share: float | None
    seconds: Mapping[str, float]
    shards: int
    done_before: int
    written: int
    notes: tuple[str, ...]
    error: str | None = None

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
            "notes": list(self.notes),
            "error": self.error,
        }


@dataclass(frozen=True, slots=True)
class Made:
    """What receipts of full resolution say together. tiles: of each tier. cost: multiply-adds."""

    tiles: Mapping[str, int]
    cost: float

    @staticmethod
    def of(plan: Plan, receipts: Iterable[Receipt]) -> "Made":
        """The sum of some receipts of a plan; those of smaller levels count nothing."""
        tiles, cost = Counter({tier.label: 0 for tier in plan.tiers}), 0.0
        for receipt in receipts:
            tiles.update(receipt.tiles)
            cost += receipt.cost
        return Made(tiles, cost)

    def share(self, plan: Plan, whole: bool) -> float | None:
        """The cost as a share of the full tier everywhere. whole: all shards are made."""
        if not self.cost:
            return None
        return cost_share(plan, self.cost) if whole else self.cost / full_cost(plan)


def count_shards(plan: Plan) -> int:
    """Shards of all levels of a plan's output."""
    return sum(1 for _ in shard_keys(plan.grid.hr_size, plan.grid.hr_shard))
