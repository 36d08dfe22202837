"""`tierscale scout`: the network that predicts the error of each tier on a tile."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from tierscale.jobs.cli.options import SCALE, answering, on_photos
from tierscale.jobs.cli.terminal import emit
from tierscale.jobs.cli.types import NumberType


@click.group()
def scout() -> None:
    """Fit the network that predicts, before enlarging, what error each tier leaves on a tile."""


@scout.command("fit")
@click.option(
    "--tiers",
    required=True,
    metavar="A,B,C",
    help="Networks from light to full, separated by commas, as for upscale.",
)
@SCALE
@on_photos
@click.option(
    "--variants",
    type=click.IntRange(min=0),
    default=4,
    show_default=True,
    help="Variations of each photo: finer, turned, dark, noisy and others.",
)
@click.option(
    "--observe",
    type=NumberType(float),
    metavar="SECONDS",
    default=600.0,
    show_default=True,
    help="Longest time for running the tiers.",
)
@click.option(
    "--seconds",
    type=NumberType(float),
    default=300.0,
    show_default=True,
    help="Longest time for fitting, in seconds.",
)
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    default=450,
    show_default=True,
    help="Largest number of steps for fitting.",
)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads (default: all).")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    help="File to write; its name ends in .safetensors (default: where upscale looks).",
)
@answering
def fit(as_json: bool, debug: bool, **cli_args: Any) -> None:
    """Fit the scout of some tiers on photos of your own.

    upscale finds the scout by the weights of its tiers, or takes the one of --scout FILE. The
    errors of the tiers, tile by tile (.errors.parquet), and a card (.json) are written beside it.
    """
    from tierscale.jobs.fit_scout import FitOptions, fit_scout

    path, card = fit_scout(FitOptions(**cli_args))
    content = {"status": "done", "output": str(path), **card, "error": None}
    emit(as_json, content, report(path, card))


def report(path: Path, card: Mapping[str, Any]) -> list[str]:
    """What was fitted, in lines for a person."""
    from tierscale.models.registry import scout_folders

    if card["captured"] is None:
        judged = "too few photos to hold some back for a test: give more or larger ones"
    else:
        shares = ", ".join(
            f"{captured:.0%} at {float(share):.0%} of the full tier's cost"
            for share, captured in card["captured"].items()
        )
        judged = f"on photos held back, of a perfect router's gain over chance: {shares}"
    known = path.parent in scout_folders()
    use = "upscale finds it by its tiers" if known else f"use it with upscale --scout {path}"
    return [f"{path}: fitted for {', '.join(card['tiers'])}; {use}", f"  {judged}"]
