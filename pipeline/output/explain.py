"""Why an output came out as it did: where its compute went, tier by tier, and maps of its tiles."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from tierscale.pipeline.errors import Refused
from tierscale.pipeline.output import ownership, tile_table
from tierscale.pipeline.output.levels import StoreLayout
from tierscale.pipeline.output.pictures import charts
from tierscale.pipeline.output.pictures.preview import preview
from tierscale.pipeline.output.pictures.tile_maps import DifficultyMap, TileMap
from tierscale.pipeline.output.receipts import Folder
from tierscale.pipeline.plan.plan import Plan
from tierscale.pipeline.plan.policies import parameter_of
from tierscale.pipeline.routing.audit import loss_db
from tierscale.pipeline.routing.costs import areas, cost_share
from tierscale.pipeline.wording import counted


@dataclass(frozen=True, slots=True)
class TierUse:
    """What one tier did for an output.

    cost: multiply-adds executed. seconds: of workers. saved: of the error that the full tier
    everywhere is predicted to save over the light one, the share that this tier saves, 0..1; None
    where errors are not known. settings: frozen in the plan, such as the width of NAME@auto.
    """

    tier: str
    tiles: int
    cost: float
    seconds: float
    saved: float | None
    settings: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Explanation:
    """Where the compute of an output went.

    policy: name. parameter: of the policy, such as the budget, or None. scores: how tiles were
    scored, see Draft. shards: "done" and "total". cost: multiply-adds executed. share: of the cost
    of the full tier everywhere. halo: cost over that of the tiles without their surroundings, less
    1. lost: dB below the full tier everywhere, by prediction; None where it is not known. Of an
    unfinished output, cost and seconds are 0, share and halo None.
    """

    output: str
    policy: str
    parameter: float | None
    scores: str
    shards: Mapping[str, int]
    tiers: tuple[TierUse, ...]
    cost: float
    share: float | None
    halo: float | None
    lost: float | None

    def to_json(self) -> dict[str, Any]:
        """The object that `tierscale explain --json` prints; the policy's parameter is "asked"."""
        plain = asdict(self)
        return {"asked" if name == "parameter" else name: plain[name] for name in plain}


def explain(output: str) -> Explanation:
    """Where the compute of an output went, by its tile table. Refused: no plan, or no table."""
    folder = Folder(output)
    plan = folder.plan()
    table = tile_table.read(folder.path)
    errors = tile_table.scores_of(table, len(plan.tiers)).astype(np.float64)
    routes = TileMap.of(plan).routes
    cost = float(table["cost"].to_numpy().sum())
    keys = set(StoreLayout.of(plan).keys)
    done = keys & {receipt.key for receipt in folder.receipts(plan.digest)}
    return Explanation(
        output=output,
        policy=plan.policy.name,
        parameter=parameter_of(plan.policy),
        scores=plan.scoring,
        shards={"done": len(done), "total": len(keys)},
        tiers=_tier_uses(plan, table, errors),
        cost=cost,
        share=cost_share(plan, cost) if cost else None,
        halo=cost / _bare_cost(plan, routes) - 1 if cost else None,
        lost=loss_db(plan, errors, routes) if plan.knows_errors else None,
    )


def _tier_uses(plan: Plan, table: pa.Table, errors: np.ndarray) -> tuple[TierUse, ...]:
    """What each tier did; errors: predicted, (tiles, tiers)."""
    weights, routes = areas(plan), TileMap.of(plan).routes.ravel()
    left = np.take_along_axis(errors, routes[:, None], axis=1)[:, 0]
    saved = weights * (errors[:, 0] - left)
    most = float((weights * (errors[:, 0] - errors[:, -1])).sum())
    known = plan.knows_errors and most > 0
    cost, milliseconds = (table[name].to_numpy() for name in ("cost", "milliseconds"))
    uses = []
    for index, tier in enumerate(plan.tiers):
        mine = routes == index
        uses.append(
            TierUse(
                tier=tier.label,
                tiles=int(mine.sum()),
                cost=float(cost[mine].sum()),
                seconds=float(milliseconds[mine].sum()) / 1000,
                saved=float(saved[mine].sum()) / most if known else None,
                settings=plan.settings[index],
            )
        )
    return tuple(uses)


def _bare_cost(plan: Plan, routes: np.ndarray) -> float:
    """Multiply-adds of all tiles without their surroundings."""
    costs = np.array([tier.cost for tier in plan.tiers])[routes.ravel()]
    return float((areas(plan) * costs).sum()) * plan.rgb_count


def draw(output: str) -> Image.Image:
    """The maps of tiers and of difficulty. Refused: no plan, no table, or the output is gone."""
    folder = Folder(output)
    plan = folder.plan()
    table = tile_table.read(folder.path)
    if not ownership.matches_plan(output, plan.digest, len(StoreLayout.of(plan).levels)):
        raise Refused(
            f"{output} is not there any more, only the folder {folder.path}; upscale the image"
            " again"
        )
    picture = preview(output, plan)
    if not table["cost"].to_numpy().any():  # unfinished: most of what is there is still black
        picture = Image.new("L", picture.size, "white")
    difficulty = table["difficulty"].to_numpy().reshape(plan.grid.tiles)
    return charts.tile_charts(picture, TileMap.of(plan), DifficultyMap.of(plan, difficulty))


def to_lines(explanation: Explanation) -> list[str]:
    """Where the compute went, in lines for a person."""
    tiles = sum(use.tiles for use in explanation.tiers)
    cost, shards = explanation.cost, explanation.shards
    parameter = "" if explanation.parameter is None else f" {explanation.parameter:g}"
    work = (
        ""
        if explanation.share is None
        else f", {cost:.3g} multiply-adds, {explanation.share:.1%} of the full tier everywhere"
    )
    lines = [
        f"{explanation.output}: policy {explanation.policy}{parameter},"
        f" {counted(tiles, 'tile')}{work}"
    ]
    if shards["done"] < shards["total"]:
        lines.append(
            f"  unfinished: {shards['done']} of {shards['total']} shards are done; this is the plan"
        )
    lines.append(
        f"  {'tier':<20} {'tiles':>14} {'multiply-adds':>18} {'seconds':>9} {'error saved':>12}"
    )
    for use in explanation.tiers:
        many = f"{use.tiles} ({use.tiles / max(tiles, 1):.0%})"
        macs = f"{use.cost:.3g} ({use.cost / max(cost, 1):.0%})"
        saved = "" if use.saved is None else f"{use.saved:.0%}"
        lines.append(f"  {use.tier:<20} {many:>14} {macs:>18} {use.seconds:>9.1f} {saved:>12}")
    return [*lines, *_remarks(explanation)]


def _remarks(explanation: Explanation) -> list[str]:
    """What the table of tiers does not say."""
    lines = [
        f"  {use.tier}: " + ", ".join(f"{name} {value:.4g}" for name, value in use.settings.items())
        for use in explanation.tiers
        if use.settings
    ]
    saved = [use.saved for use in explanation.tiers if use.saved is not None]
    if saved:
        lines.append(
            f"  error saved: {sum(saved):.0%} in all of what the full tier everywhere would save"
            " over the light one"
        )
    if explanation.halo is not None:
        lines.append(
            f"  surroundings of tiles and blends: {explanation.halo:.0%} on top of the tiles alone"
        )
    if explanation.lost is not None:
        lines.append(f"  predicted: {explanation.lost:.3f} dB below the full tier everywhere")
    if explanation.scores in ("energy", "detail") and explanation.lost is None:
        lines.append("  tiles were ranked by plain detail: what these tiers lose was not measured")
    return lines
