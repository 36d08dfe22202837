"""`tierscale explain`: which tile got which network and why; and the curve of `tierscale plan`."""

import json
from typing import Any

import click

from tierscale.jobs.cli.options import answering
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.plan.policies import looks_at_tiles


@click.command("explain")
@click.argument("output")
@click.option(
    "--png", "picture", help="Where the maps go (default: explain.png beside OUTPUT's plan)."
)
@answering
def explain_output(output: str, picture: str | None, as_json: bool, debug: bool) -> None:
    """Say where the compute of OUTPUT.zarr went, and draw maps of its tiers and its difficulty."""
    from tierscale.pipeline.output import explain
    from tierscale.pipeline.output.pictures.preview import save_picture
    from tierscale.pipeline.storage.sidecar import sidecar

    check_picture(picture)
    path = picture or str(sidecar(output) / "explain.png")
    explanation = explain.explain(output)
    save_picture(explain.draw(output), path)
    content = {
        "status": "done",
        **explanation.to_json(),
        "files": {"explain": path},
        "error": None,
    }
    text = f"{explain.to_text(explanation)}\n  maps             {path}"
    print(json.dumps(content) if as_json else text, flush=True)


def check_picture(path: str | None) -> None:
    """Refuse a picture that is not a PNG, or in a folder that does not exist."""
    from tierscale.pipeline.output.export.common import check_folder

    if path is None:
        return
    if not path.lower().endswith(".png"):
        raise Refused(f"the picture {path} does not end in .png")
    if "://" not in path:
        check_folder(path)


def check_curve(path: str | None, options: Options) -> None:
    """Refuse a curve that cannot be drawn, before the image is read."""
    check_picture(path)
    if path is not None and not looks_at_tiles(options.policy):
        raise Refused(
            f"policy {options.policy.name} scores no tiles, so there is no curve; ask for another"
            " policy, or leave out --curve"
        )


def tell_curve(curve: list[tuple[float, float]] | None) -> list[str]:
    """The predicted quality at each cost, in lines for a person."""
    if not curve:
        return []
    return [
        "  budget           predicted loss against the full tier",
        *(f"  {share:>6.0%}           {loss:.3f} dB" for share, loss in curve),
    ]


def draw_curve(summary: dict[str, Any], path: str, name: str) -> str:
    """Draw the curve of a plan's summary, and the plan itself on it; the path of the picture.

    Refused: there is no curve.
    """
    from tierscale.pipeline.output.pictures.charts import curve_chart
    from tierscale.pipeline.output.pictures.preview import save_picture

    curve = summary["curve"]
    if not curve:
        tiers = list(summary["tiles"])
        if len(tiers) == 1:
            raise Refused(
                f"with {tiers[0]} alone there is nothing to choose and no curve; name more --tiers,"
                " or leave out --curve"
            )
        raise Refused(
            f"no scout knows {', '.join(tiers)}, so there is no curve; run tierscale scout fit, or"
            " leave out --curve"
        )
    save_picture(curve_chart(name, curve, (summary["cost_share"], summary["lost"])), path)
    return path
