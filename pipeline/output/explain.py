"""Why an output came out as it did: the map of tiers beside the difficulty of its tiles, and where
the compute went.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw, ImageFont

from tierscale.pipeline.errors import Refused
from tierscale.pipeline.inference.normalise import plane_count
from tierscale.pipeline.output import report, store
from tierscale.pipeline.output.receipts import Folder
from tierscale.pipeline.plan.plan import IMPLIED, Plan
from tierscale.pipeline.routing.costs import cost_share
from tierscale.pipeline.routing.routes import areas, lost
from tierscale.pipeline.storage.paths import Place

# From easy to hard: dark blue, green, yellow, as in most maps of heights.
RAMP = np.array(
    ((48, 18, 92), (54, 92, 141), (39, 146, 134), (115, 208, 85), (253, 231, 37)), np.float32
)


def explain(output: str) -> dict[str, Any]:
    """Where the compute of an output went, by tier, from its tile table. Refused: there is no plan
    or no table.

    Each tier: tiles, cost (multiply-adds executed), seconds (of workers), saved (of what the
    dearest tier everywhere is predicted to save over the cheapest, the share that it does; None
    without a scout). Beside them: cost, share (of the dearest tier everywhere), halo (executed cost
    over that of the cores alone), lost (dB below the dearest tier everywhere by prediction, or
    None), scores ("scout", "detail", "none"), asked (what the policy was told), shards (done, all).
    Of an unfinished output, cost and seconds are 0, share and halo None.
    """
    folder = Folder(output)
    plan = folder.plan()
    table = read_table(folder.path / "tiles.parquet")
    errors = np.array(table["predicted_mse"].to_pylist(), np.float64).reshape(-1, len(plan.tiers))
    names = np.array(table["tier"].to_pylist())
    cost, milliseconds = (table[name].to_numpy() for name in ("cost", "milliseconds"))
    assert plan.routes is not None
    weights, left = (
        areas(plan),
        np.take_along_axis(errors, plan.routes.reshape(-1, 1), axis=1)[:, 0],
    )
    saved, most = (
        weights * (errors[:, 0] - left),
        float((weights * (errors[:, 0] - errors[:, -1])).sum()),
    )
    tiers, known = [], plan.scores == "scout" and most > 0
    for tier in plan.tiers:
        mine = names == tier.label
        share = float(saved[mine].sum()) / most if known else None
        seconds = float(milliseconds[mine].sum()) / 1000
        tiers.append(
            {
                "tier": tier.label,
                "tiles": int(mine.sum()),
                "cost": float(cost[mine].sum()),
                "seconds": seconds,
                "saved": share,
            }
        )
    bare = float(
        (weights * np.array([tier.cost for tier in plan.tiers])[plan.routes.ravel()]).sum()
    )
    bare *= plane_count(plan.shape[0], plan.colour)
    keys = set(store.shard_keys(plan.grid.hr_size, plan.grid.hr_shard))
    done = len(keys & {receipt.key for receipt in folder.receipts(plan.digest)})
    return {
        "output": output,
        "policy": plan.policy["name"],
        "asked": next(
            (
                plan.policy[name]
                for name, policy in IMPLIED.items()
                if policy == plan.policy["name"]
            ),
            None,
        ),
        "scores": plan.scores,
        "shards": {"done": done, "total": len(keys)},
        "tiers": tiers,
        "cost": float(cost.sum()),
        "share": cost_share(plan, float(cost.sum())) if cost.any() else None,
        "halo": float(cost.sum()) / bare - 1 if cost.any() else None,
        "lost": lost(plan, errors, plan.routes) if plan.scores == "scout" else None,
    }


def read_table(path: Place) -> Any:
    """The tile table of an output. Refused: there is none."""
    try:
        return pq.read_table(pa.BufferReader(path.read_bytes()))
    except FileNotFoundError:
        raise Refused(f"there is no tile table {path}; upscale the image first") from None


def draw(output: str) -> Image.Image:
    """The map of tiers and, to its right (below it, where the image is wide), the difficulty of the
    tiles, each over the picture.
    """
    folder = Folder(output)
    plan = folder.plan()
    table = read_table(folder.path / "tiles.parquet")
    if not store.made(output, plan.digest, len(store.level_sizes(plan.grid.hr_size))):
        raise Refused(
            f"{output} is not there any more, only what lies beside it; upscale the image again"
        )
    picture = report.preview(output, plan)
    if not table["cost"].to_numpy().any():  # unfinished: what is there is mostly black
        picture = Image.new("L", picture.size, "white")
    tiers = report.routing_map(picture, plan)
    difficulty = difficulty_map(
        picture, plan, table["difficulty"].to_numpy().reshape(plan.grid.tiles)
    )
    wide = picture.width > 1.6 * picture.height
    gap = 12
    if wide:
        size = (max(tiers.width, difficulty.width), tiers.height + gap + difficulty.height)
    else:
        size = (tiers.width + gap + difficulty.width, max(tiers.height, difficulty.height))
    sheet = Image.new("RGB", size, "white")
    sheet.paste(tiers, (0, 0))
    sheet.paste(difficulty, (0, tiers.height + gap) if wide else (tiers.width + gap, 0))
    return sheet


def difficulty_map(picture: Image.Image, plan: Plan, difficulty: np.ndarray) -> Image.Image:
    """The root of the difficulty of every tile (rows, columns), in grey values, as a tint over the
    picture, with a scale below.
    """
    base, rows, columns = report.laid_over(picture, plan)
    grey = 255 * np.sqrt(np.maximum(difficulty, 0.0))
    # Less than a grey value is hard for nobody: an image that is easy all over has the colour of
    # easy tiles.
    high = max(float(grey.max()), 1.0 if plan.scores == "scout" else 1e-3)
    scored = plan.scores != "none"
    mixed = report.tinted(
        base, ramp(grey / high)[rows][:, columns] if scored else np.full((*base.shape, 3), 255.0)
    )
    sheet = Image.new("RGB", (mixed.shape[1], mixed.shape[0] + 64), "white")
    sheet.paste(Image.fromarray(mixed), (0, 0))
    pen, font, top = ImageDraw.Draw(sheet), ImageFont.load_default(16), mixed.shape[0] + 10
    if scored:
        scale = ramp(np.linspace(0, 1, 240)[None]).astype(np.uint8).repeat(16, axis=0)
        sheet.paste(Image.fromarray(scale), (10, top))
    unit = (
        f"0 to {high:.1f} grey values of 255"
        if plan.scores == "scout"
        else "plain detail, from none to the most in this image"
    )
    text = f"difficulty: {unit}" if scored else "difficulty: not scored, one tier for all"
    pen.text((10, top + 24), text, fill="black", font=font)
    return sheet


def ramp(values: np.ndarray) -> np.ndarray:
    """Colours (…, 3) of values 0..1."""
    at = np.clip(values, 0, 1) * (len(RAMP) - 1)
    return np.stack(
        [np.interp(at, np.arange(len(RAMP)), RAMP[:, channel]) for channel in range(3)], axis=-1
    )


def tell(found: dict[str, Any]) -> str:
    """Where the compute went, for a person."""
    tiles, cost = sum(tier["tiles"] for tier in found["tiers"]), found["cost"]
    asked = "" if found["asked"] is None else f" {found['asked']:g}"
    macs = (
        ""
        if found["share"] is None
        else f", {cost:.3g} multiply-adds, {found['share']:.1%} of the dearest tier everywhere"
    )
    lines, shards = (
        [f"{found['output']}: policy {found['policy']}{asked}, {tiles} tiles{macs}"],
        found["shards"],
    )
    if shards["done"] < shards["total"]:
        lines.append(
            f"  unfinished: {shards['done']} of {shards['total']} shards are done; below is what"
            " was planned"
        )
    lines.append(
        f"  {'tier':<20} {'tiles':>14} {'multiply-adds':>18} {'seconds':>9} {'error saved':>12}"
    )
    for tier in found["tiers"]:
        many = f"{tier['tiles']} ({tier['tiles'] / max(tiles, 1):.0%})"
        work = f"{tier['cost']:.3g} ({tier['cost'] / max(cost, 1):.0%})"
        saved = "" if tier["saved"] is None else f"{tier['saved']:.0%}"
        lines.append(
            f"  {tier['tier']:<20} {many:>14} {work:>18} {tier['seconds']:>9.1f} {saved:>12}"
        )
    if any(tier["saved"] is not None for tier in found["tiers"]):
        total = sum(tier["saved"] for tier in found["tiers"])
        lines.append(
            f"  error saved: {total:.0%} in all of what the dearest tier everywhere would save over"
            " the cheapest"
        )
    if found["halo"] is not None:
        lines.append(f"  halos and fades: {found['halo']:.0%} on top of the tiles themselves")
    if found["lost"] is not None:
        lines.append(f"  by prediction {found['lost']:.3f} dB below the dearest tier everywhere")
    if found["scores"] == "detail":
        lines.append("  tiles were ranked by plain detail: no scout was fitted for these tiers")
    return "\n".join(lines)
