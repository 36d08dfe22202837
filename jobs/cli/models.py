"""`tierscale models`: the networks that can be tiers, and how others become tiers."""

import json
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import click

from tierscale.jobs.cli.options import answering, on_photos
from tierscale.jobs.cli.terminal import emit, table
from tierscale.jobs.cli.types import ScaleType
from tierscale.models import catalogue
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.storage.path_policy import check_secrets


class Networks(click.Group):
    """Takes what is no command for the name of a network: `models file:x.pth` is `models show`."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command of a line, and what is left of the line."""
        named = args[0] not in self.commands and not args[0].startswith("-")
        return super().resolve_command(ctx, ["show", *args] if named else args)


@click.group(cls=Networks, invoke_without_command=True)
@answering
@click.pass_context
def models(context: click.Context, as_json: bool, debug: bool) -> None:
    """List the networks that can be tiers; convert or calibrate others."""
    if context.invoked_subcommand is None:
        entries = catalogue.listing()
        lines = [*table(rows(entries)), *autos(entries)]
        emit(as_json, {"status": "done", "models": entries, "error": None}, lines)


def rows(entries: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The table of networks: a header, and a row for each."""
    cells = [["name", "scales", "parameters", "reach", "multiply-adds/pixel", "PSNR on Set14"]]
    for entry in entries:
        scales = entry["scales"]
        psnr = (entry.get("psnr") or {}).get("Set14")
        cells.append(
            [
                entry["name"],
                "any" if scales is None else ", ".join(f"x{scale}" for scale in scales),
                f"{entry['parameters']:,}",
                "whole window" if entry["reach"] is None else str(entry["reach"]),
                f"{entry['cost_per_pixel']:,.0f}",
                "" if psnr is None else f"{psnr:.2f} dB",
            ]
        )
    return cells


def autos(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each network whose NAME@auto follows the scale."""
    lines = []
    for entry in entries:
        by_scale = entry.get("auto")
        if by_scale and (control := entry.get("control")):
            each = [f"{figures[control]:g} at x{scale}" for scale, figures in by_scale.items()]
            lines.append(f"{entry['name']}@auto takes the {control} by scale: {', '.join(each)}")
    return lines


@models.command("show", short_help="Say what is known of a network or a file.")
@click.argument("name")
@answering
def show(name: str, as_json: bool, debug: bool) -> None:
    """Say what is known of a network: a name, or file:PATH."""
    from tierscale.models.registry import facts

    check_secrets(name)
    try:
        found = facts(name)
    except ValueError as error:
        raise Refused(str(error)) from error
    emit(as_json, {"status": "done", "model": found, "error": None}, [*described(found)])


def described(found: Mapping[str, Any]) -> Iterator[str]:
    """What facts() found, a line each."""
    scales, reach = found["scales"], found["reach"]
    yield f"network          {found['name']}"
    if found["architecture"]:
        yield f"architecture     {found['architecture']}"
    yield f"scale            {'any' if scales is None else ', '.join(f'x{one}' for one in scales)}"
    yield f"channels         {found['channels']}"
    yield f"parameters       {found['parameters']:,}"
    yield f"looks at         {'the whole window' if reach is None else f'{reach} pixels around'}"
    if found["multiple"] > 1:
        yield f"windows begin    at multiples of {found['multiple']} pixels"
    yield f"multiply-adds    {found['cost_per_pixel']:,.0f} for each input pixel"
    yield f"memory           {found['bytes_per_pixel'] / 1024:,.1f} KiB for each input pixel"
    if psnr := (found["psnr"] or {}).get("Set14"):
        yield f"PSNR on Set14    {psnr:.2f} dB"
    for note in found["notes"]:
        yield f"note: {note}"


@models.command("convert", short_help="Convert a checkpoint of a method's authors.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--method",
    required=True,
    metavar="NAME",
    help=(
        "The code that wrote FILE: pcsr, ape, adadsr, anysr, classsr, carn, fsrcnn, srresnet and"
        " others."
    ),
)
@click.option(
    "--config",
    metavar="JSON|FILE",
    help="Constructor arguments that FILE does not hold, as JSON or as a file of it.",
)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="File to write; its name ends in .safetensors.",
)
@answering
def convert_model(file: Path, method: str, output: Path, **cli_args: Any) -> None:
    """Convert a checkpoint FILE (.pth, .pt) of a method's authors.

    The result is a tier: file:OUTPUT.
    """
    from tierscale.models.contract.checkpoints import write_checkpoint
    from tierscale.models.contract.efforts import table_path
    from tierscale.models.convert.upstream import convert
    from tierscale.models.registry import UPSCALERS

    if output.suffix != ".safetensors":
        raise Refused(f"the output {output} does not end in .safetensors; give it a name that does")
    try:
        checkpoint = convert(file, method, read_config(cli_args["config"]))
        upscaler = UPSCALERS[checkpoint.spec.network](checkpoint, output.name)
        write_checkpoint(output, checkpoint)
    except ValueError as error:
        named = str(file) in str(error)
        raise Refused(str(error) if named else f"{file}: {error}") from error
    # What was measured of other weights under this name.
    table_path(output).unlink(missing_ok=True)
    offered = upscaler.scales
    scales = None if offered is None else [str(scale) for scale in sorted(offered)]
    content = {
        "status": "done",
        "output": str(output),
        "scales": scales,
        "parameters": upscaler.parameters,
        "error": None,
    }
    text = "any scale" if scales is None else "x" + ", x".join(scales)
    text = f"{output}: {text}, {upscaler.parameters:,} parameters; a tier as file:{output}"
    emit(cli_args["as_json"], content, text)


def read_config(config: str | None) -> dict[str, Any]:
    """Constructor arguments from JSON or a file of it; empty for None. Refused: it is neither."""
    if config is None:
        return {}
    try:
        text = config if config.lstrip().startswith("{") else Path(config).read_text()
        arguments = json.loads(text)
    except (OSError, ValueError) as error:
        raise Refused(
            f"--config {config} is neither JSON nor a file of it ({error}); give one of the two"
        ) from error
    if not isinstance(arguments, dict):
        raise Refused(
            f"--config {config} is not a JSON object of constructor arguments; write one such as"
            ' {"features": 32}'
        )
    return arguments


@models.command("calibrate", short_help="Measure what efforts of a network cost.")
@click.argument("name")
@on_photos
@click.option(
    "--scale",
    type=ScaleType(),
    help="Scale to measure at (default: the network's own, or 4 where it has none).",
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
    help="Number of crops to measure on.",
)
@answering
def calibrate_model(name: str, folder: Path, scale: Fraction | None, **cli_args: Any) -> None:
    """Measure what the settings of an adaptive network cost, so that NAME@EFFORT can be a tier.

    The table is stored beside the network's weights.
    """
    from tierscale.models.contract.efforts import table_path
    from tierscale.models.registry import locate
    from tierscale.models.train.calibrate import Sampling, calibrate

    check_secrets(name)
    crops = Sampling(folder, cli_args["side"], cli_args["count"], cli_args["seed"])
    try:
        efforts = calibrate(name, crops, scale)
    except ValueError as error:
        raise Refused(str(error)) from error
    path = str(table_path(locate(name)))
    content = {
        "status": "done",
        "output": path,
        "control": efforts.control,
        "settings": efforts.settings,
        "shares": efforts.shares,
        "error": None,
    }
    lines = [f"{path}: {efforts.floor:.1%} of the full computation at least"]
    for setting, share in zip(efforts.settings, efforts.shares, strict=True):
        lines.append(f"  {efforts.control} {setting:>8.3g}  {share:6.1%}")
    emit(cli_args["as_json"], content, lines)
