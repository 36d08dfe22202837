"""`tierscale explain`: which tile got which network, why, and where the compute went; and the curve
that `tierscale plan` draws.
"""

import json
from typing import Any

import click

from tierscale.jobs.cli.options import answering
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.plan.plan import UNSCORED, Options


@click.command("explain")
@click.argument("output")
@click.option(
    "--png", "picture", help="Where the maps go (default: explain.png beside OUTPUT's plan)."
)
@answering
def explain_output(output: str, picture: str | None, as_json: bool, debug: bool) -> None:
    """Say where the compute of OUTPUT.zarr went, and draw the map of its tiers beside the
    difficulty of its tiles.
    """
    from tierscale.pipeline.output import explain
    from tierscale.pipeline.output.report import save_picture
    from tierscale.pipeline.storage.sidecar import sidecar

    check_picture(picture)
    path = picture or str(sidecar(output) / "explain.png")
    found = explain.explain(output)
    save_picture(explain.draw(output), path)
    content = {"status": "done", **found, "files": {"explain": path}, "error": None}
    print(
        json.dumps(content) if as_json else f"{explain.tell(found)}\n  maps             {path}",
        flush=True,
    )


def check_picture(path: str | None) -> None:
    """Refuse a picture of a kind that is not drawn, or in a folder that is not there."""
    from tierscale.pipeline.output.export.common import check_folder

    if path is None:
        return
    if not path.lower().endswith(".png"):
        raise Refused(f"the picture {path} does not end in .png")
    if "://" not in path:
        check_folder(path)


def check_curve(path: str | None, options: Options) -> None:
    """Refuse a curve that cannot be drawn, before the image is looked at."""
    check_picture(path)
    if path is not None and options.policy in UNSCORED:
        raise Refused(
            f"policy {options.policy} scores no tiles, so there is no curve; ask for another"
            " policy, or leave out --curve"
        )


def tell_curve(curve: list[tuple[float, float]] | None) -> list[str]:
    """The predicted quality at each cost, in lines for a person."""
    if not curve:
        return []
    return [
        "  budget           predicted loss against the dearest tier",
        *(f"  {share:>6.0%}           {lost:.3f} dB" for share, lost in curve),
    ]


def draw_curve(summary: dict[str, Any], path: str, name: str) -> str:
    """Draw the curve of a plan's summary, and where the plan itself lies on it; the path of the
    picture. Refused: there is no curve.
    """
    from tierscale.pipeline.output.chart import Line, chart
    from tierscale.pipeline.output.report import save_picture

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
    best = Line("best for a budget", [(100 * share, -lost) for share, lost in curve])
    share, lost = 100 * summary["cost_share"], -summary["lost"]
    lines = [
        best,
        Line(
            "as planned",
            [(share, lost)],
            dots=True,
            names=[f"as planned: {share:.0f} %, {lost:.3f} dB"],
        ),
    ]
    axes = (
        "multiply-adds, % of the dearest tier everywhere",
        "predicted PSNR over that of the dearest tier everywhere, dB",
    )
    save_picture(chart(f"What {name} is predicted to lose", *axes, lines), path)
    return path
