"""The page beside an output, report.html, and the files that close it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from tierscale.pipeline.formats.metadata import PhotoMetadata
from tierscale.pipeline.output import tile_table
from tierscale.pipeline.output.pictures.tile_maps import TileMap
from tierscale.pipeline.output.receipts import SUMMARY, ReceiptSummary
from tierscale.pipeline.plan.plan import Plan
from tierscale.pipeline.storage.atomic import as_json, write_files
from tierscale.pipeline.storage.path_policy import printable
from tierscale.pipeline.storage.paths import Place
from tierscale.pipeline.storage.sidecar import sidecar

# Holds page.html, the frame and style of all pages.
FRAMES = Path(__file__).parent


def page(template: Path) -> Template:
    """A page to fill in, which may extend page.html.

    Names come from strangers: their markup and control characters are escaped.
    """
    pages = Environment(
        loader=FileSystemLoader([template.parent, FRAMES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_without_controls,
    )
    return pages.get_template(template.name)


def _without_controls(value: object) -> object:
    """A value of a page with control characters escaped; markup is written by templates only."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def close(
    output: str,
    plan: Plan,
    receipts: ReceiptSummary,
    summary: Mapping[str, Any],
    metadata: PhotoMetadata,
) -> None:
    """Write all that lies beside a finished output but the pictures.

    receipts: of all its shards. metadata: of the output.
    """
    folder = sidecar(output)
    scores = tile_table.read_scores(folder, len(plan.tiers))
    costs, fidelity = receipts.tile_costs, receipts.fidelity
    html = report(Path(output).name, TileMap.of(plan), costs, summary)
    files: dict[Place, bytes] = {
        folder / tile_table.NAME: tile_table.to_parquet(plan, scores, costs, fidelity),
        folder / SUMMARY: as_json(summary),
        folder / "facts.json": as_json(metadata.to_json()),
        folder / "report.html": html.encode(),
    }
    if metadata.icc:
        files[folder / "profile.icc"] = metadata.icc
    write_files(files)


@dataclass(frozen=True, slots=True)
class TierRow:
    """A tier in the report's table.

    colour: as in routing.png, RRGGBB. cost: multiply-adds executed. seconds: of workers.
    """

    label: str
    colour: str
    tiles: int
    cost: float
    seconds: float


def tier_rows(tiles: TileMap, tile_costs: np.ndarray) -> list[TierRow]:
    """What every tier did, light to full; tile_costs: as of ReceiptSummary."""
    rows = []
    for tier, label in enumerate(tiles.labels):
        cost, milliseconds = tile_costs[:, tiles.routes == tier].sum(axis=1)
        colour = "".join(f"{int(part):02x}" for part in tiles.tints[tier])
        rows.append(TierRow(label, colour, tiles.count(tier), float(cost), milliseconds / 1000))
    return rows


def report(name: str, tiles: TileMap, tile_costs: np.ndarray, summary: Mapping[str, Any]) -> str:
    """The page of one output, HTML. It shows preview.png and routing.png, which lie beside it."""
    rows = tier_rows(tiles, tile_costs)
    return page(FRAMES / "report.html").render(
        name=name,
        summary=summary,
        tiers=rows,
        count=tiles.routes.size,
        cost=sum(row.cost for row in rows),
        stages={stage: part for stage, part in summary["seconds"].items() if stage != "total"},
    )
