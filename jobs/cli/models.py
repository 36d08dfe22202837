"""`tierscale models`: the networks that can be tiers, and how others become tiers."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import click

from tierscale.jobs.cli.options import ScaleType, answering
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.storage.path_policy import check_secrets


@click.group(invoke_without_command=True)
@answering
@click.pass_context
def models(context: click.Context, as_json: bool, debug: bool) -> None:
    """The networks that can be tiers."""
    if context.invoked_subcommand is None:
        list_models(as_json)


def list_models(as_json: bool) -> None:
    """Print every network that has a name."""
    from rich.console import Console
    from rich.table import Table

    from tierscale.models.registry import listing

    found = listing()
    if as_json:
        print(json.dumps({"status": "done", "models": found, "error": None}))
        return
    table = Table("name", "scales", "parameters", "reach", "multiply-adds/pixel", "PSNR on Set14")
    for entry in found:
        scales = (
            "any"
            if entry["scales"] is None
            else ", ".join(f"x{scale}" for scale in entry["scales"])
        )
        psnr = (entry.get("psnr") or {}).get("Set14")
        table.add_row(
            entry["name"],
            scales,
            f"{entry['parameters']:,}",
            "whole window" if entry["reach"] is None else str(entry["reach"]),
            f"{entry['cost_per_pixel']:,.0f}",
            "" if psnr is None else f"{psnr:.2f} dB",
        )
    Console(width=max(100, Console().width)).print(table)


@models.command("convert")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--method",
    required=True,
    help=(
        "Whose code wrote FILE: pcsr, ape, adadsr, anysr, classsr, carn, fsrcnn, srresnet and"
        " others."
    ),
)
@click.option(
    "--config", help="Constructor arguments that FILE does not hold: JSON, or a file of it."
)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="What to write: a name that ends in .safetensors.",
)
@answering
def convert_model(
    file: Path, method: str, config: str | None, output: Path, as_json: bool, debug: bool
) -> None:
    """Make an official checkpoint FILE (.pth, .pt) one of ours, which is then a tier:
    file:OUTPUT.
    """
    from tierscale.models.contract.checkpoints import write_checkpoint
    from tierscale.models.contract.efforts import table_path
    from tierscale.models.convert.upstream import convert
    from tierscale.models.registry import UPSCALERS

    if output.suffix != ".safetensors":
        raise Refused(
            f"the output {output} does not end in .safetensors, which is the format of weights here"
        )
    try:
        checkpoint = convert(file, method, read_config(config))
        made = UPSCALERS[checkpoint.spec.network](checkpoint, output.name)
        write_checkpoint(output, checkpoint)
    except ValueError as error:
        raise Refused(str(error)) from error
    # What was measured of other weights under this name.
    table_path(output).unlink(missing_ok=True)
    scales = None if made.scales is None else [str(scale) for scale in sorted(made.scales)]
    content = {
        "status": "done",
        "output": str(output),
        "scales": scales,
        "parameters": made.parameters,
        "error": None,
    }
    text = (
        f"{output}: {'any scale' if scales is None else 'x' + ', x'.join(scales)},"
        f" {made.parameters:,} parameters; a tier as file:{output}"
    )
    print(json.dumps(content) if as_json else text, flush=True)


def read_config(given: str | None) -> dict[str, Any]:
    """Constructor arguments from JSON or a file of it; none of them where nothing is given."""
    if given is None:
        return {}
    try:
        text = Path(given).read_text() if not given.lstrip().startswith("{") else given
        found = json.loads(text)
    except (OSError, ValueError) as error:
        raise Refused(f"--config {given} is neither JSON nor a file of it ({error})") from error
    if not isinstance(found, dict):
        raise Refused(f"--config {given} is no JSON object of constructor arguments")
    return found


@models.command("calibrate")
@click.argument("name")
@click.option(
    "--hr",
    "folder",
    required=True,
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder of photos, 8 bit.",
)
@click.option(
    "--scale", type=ScaleType(), help="Scale to measure at (default: the network's own, or 4)."
)
@click.option(
    "--side",
    type=click.IntRange(min=16),
    default=112,
    show_default=True,
    help="Side of a crop in input pixels.",
)
@click.option(
    "--count",
    type=click.IntRange(min=1),
    default=48,
    show_default=True,
    help="Crops to measure on.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the crops' places.")
@answering
def calibrate_model(
    name: str,
    folder: Path,
    scale: Fraction | None,
    side: int,
    count: int,
    seed: int,
    as_json: bool,
    debug: bool,
) -> None:
    """Measure what the settings of an adaptive network cost, so that NAME@EFFORT can be a tier;
    stored beside its weights.
    """
    from tierscale.models.contract.efforts import table_path
    from tierscale.models.registry import locate
    from tierscale.models.train.calibrate import Sampling, calibrate

    check_secrets(name)
    try:
        found = calibrate(name, Sampling(folder, side, count, seed), scale)
    except ValueError as error:
        raise Refused(str(error)) from error
    path = str(table_path(locate(name)))
    content = {
        "status": "done",
        "output": path,
        "knob": found.control,
        "settings": found.settings,
        "shares": found.shares,
        "error": None,
    }
    rows = [
        f"  {found.control} {setting:>8.3g}  {share:6.1%}"
        for setting, share in zip(found.settings, found.shares, strict=True)
    ]
    print(
        (
            json.dumps(content)
            if as_json
            else "\n".join([f"{path}: {found.floor:.1%} of the full computation at least", *rows])
        ),
        flush=True,
    )
