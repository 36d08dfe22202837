"""`tierscale export` and `tierscale ingest`; and the outputs of upscale that are files."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tierscale.jobs.cli.exits import Draining
from tierscale.jobs.cli.options import answering
from tierscale.jobs.cli.terminal import emit
from tierscale.jobs.cli.types import BytesType
from tierscale.pipeline.errors import Interrupted, Refused
from tierscale.pipeline.storage.path_policy import check_lasting
from tierscale.pipeline.wording import counted, in_bytes

if TYPE_CHECKING:
    from tierscale.pipeline.plan.options import Options

COMPRESSIONS = ("deflate", "zstd", "lzw", "jpeg", "none")


@click.command()
@click.argument("output")
@click.argument("file")
@click.option(
    "--compression",
    type=click.Choice(COMPRESSIONS),
    default="deflate",
    show_default=True,
    help="How tiles of a TIFF are compressed.",
)
@click.option(
    "--max-memory",
    type=BytesType(),
    help="Bytes that writing a PNG may use, such as 8G (default: 4G).",
)
@click.option("--cog", is_flag=True, help="Lay a TIFF out as a Cloud Optimized GeoTIFF.")
@click.option(
    "--ome-zarr",
    type=click.Choice(["0.4"]),
    help="Write an OME-Zarr of this version, without shards, to FILE, which ends in .zarr.",
)
@click.option(
    "--dzi", is_flag=True, help="Write a Deep Zoom image of small tiles into the folder FILE."
)
@click.option(
    "--overwrite",
    is_flag=True,
    help="Replace FILE where it was not exported from OUTPUT, or was changed since.",
)
@answering
def export(output: str, file: str, **cli_args: Any) -> None:
    """Write OUTPUT.zarr as FILE.tif or FILE.png, with the photo's metadata.

    A TIFF is tiled and pyramidal, and a BigTIFF where needed. With --ome-zarr or --dzi, FILE is a
    folder.
    """
    from tierscale.jobs.cli.progress import Bar
    from tierscale.pipeline.run.exports import Export, bytes_of

    kinds = {"cog": cli_args["cog"], "ome-zarr": cli_args["ome_zarr"], "dzi": cli_args["dzi"]}
    asked = [name for name, value in kinds.items() if value]
    if len(asked) > 1:
        raise Refused(f"--{asked[0]} and --{asked[1]} exclude each other; give one of them")
    with Draining() as draining, Bar() as bar:
        try:
            Export(
                output,
                file,
                asked[0] if asked else None,
                cli_args["compression"],
                cli_args["max_memory"],
                cli_args["overwrite"],
            ).write(draining.watched(bar))
        except Interrupted:
            text = f"stopped; {file} is not written, run the same command again"
            raise draining.end(cli_args["as_json"], {"output": file}, text) from None
    size = bytes_of(file)
    content = {"status": "done", "output": file, "bytes": size, "error": None}
    emit(cli_args["as_json"], content, f"{file}: {in_bytes(size)}")


@click.command()
@click.argument("source")
@click.argument("output")
@click.option(
    "--series",
    type=int,
    help="Number of the image in a file that holds several (default: the first).",
)
@click.option(
    "--level",
    type=int,
    default=0,
    show_default=True,
    help="Pyramid level of the source to copy; 0 is the largest.",
)
@click.option("--z", type=int, help="Plane of a stack (default: the first).")
@click.option("--t", type=int, help="Time point (default: the first).")
@click.option(
    "--max-memory",
    type=BytesType(),
    help="Bytes that may be used, such as 8G (default: half of the machine).",
)
@answering
def ingest(source: str, output: str, **cli_args: Any) -> None:
    """Copy any image into a chunked zarr array, OUTPUT.zarr, in bounded memory."""
    from tierscale.jobs.cli.progress import Bar
    from tierscale.pipeline.formats.arrays.ingest import ingest as ingest_image
    from tierscale.pipeline.formats.registry import open_image
    from tierscale.pipeline.plan.options import Selection
    from tierscale.pipeline.run.draft import check_paths

    check_source(source)
    check_lasting(output, "the output")
    check_paths(source, output)
    selection = Selection(*(cli_args[name] for name in ("series", "level", "z", "t")))
    with (
        Draining() as draining,
        Bar() as bar,
        open_image(source, selection, cli_args["max_memory"]) as image,
    ):
        report = draining.watched(bar)
        try:
            ingest_image(image, output, progress=lambda done, total: report("ingest", done, total))
        except Interrupted:
            text = f"stopped; {output} is not written, run the same command again"
            raise draining.end(cli_args["as_json"], {"output": output}, text) from None
        channels, height, width = image.shape
        content = {
            "status": "done",
            "output": output,
            "shape": list(image.shape),
            "dtype": image.dtype.name,
            "notes": list(image.notes),
            "error": None,
        }
        size = f"{width}x{height} pixels, {counted(channels, 'channel')}, {image.dtype.name}"
        emit(cli_args["as_json"], content, f"{output}: {size}")


def zarr_beside(output: str) -> str:
    """The zarr behind an output: itself, or the one beside a .tif or .png."""
    path = Path(output)
    return (
        str(path.with_suffix(".zarr"))
        if path.suffix.lower() in (".tif", ".tiff", ".png")
        else output
    )


def check_export(output: str, source: str, overwrite: bool) -> None:
    """Refuse an output that cannot be written, or that would replace the source or another file."""

    path, suffix = Path(output.rstrip("/")), Path(output.rstrip("/")).suffix.lower()
    if suffix not in (".zarr", ".tif", ".tiff", ".png"):
        raise Refused(
            f"the output {output} does not end in .zarr, .tif or .png; give it a name that does"
        )
    if suffix == ".zarr":
        return
    beside = Path(zarr_beside(output))
    here, there = beside.resolve(), Path(source).resolve()
    if there in (path.resolve(), here, *here.parents) or here in there.parents:
        raise Refused(
            f"the output {output} is made from {beside}, which would lie in or around the source"
            f" {source}; choose another name"
        )
    from tierscale.pipeline.storage.sidecar import sidecar

    if beside.exists() and not sidecar(str(beside)).exists():
        raise Refused(
            f"the output {output} is made from {beside}, which exists and was not made by"
            " tierscale; choose another name"
        )
    from tierscale.pipeline.run.exports import check_place

    check_place(str(beside), output, overwrite)


def check_png(output: str, source: str, options: "Options", max_memory: int | None) -> None:
    """Refuse a PNG of what PNG cannot hold, before anything is enlarged for it."""
    from tierscale.pipeline.formats.registry import open_image
    from tierscale.pipeline.plan.options import Selection

    if not output.lower().endswith(".png"):
        return
    selection = Selection(options.series, options.level, options.z, options.t)
    with open_image(source, selection, max_memory) as image:
        if (
            image.dtype.name not in ("uint8", "uint16")
            or image.shape[0] > 4
            or (image.colour == "channels" and image.shape[0] > 1)
        ):
            raise Refused(
                f"PNG cannot hold {image.shape[0]} {image.colour} of {image.dtype.name}; name an"
                " output ending in .tif or .zarr"
            )


def check_source(source: str) -> None:
    """Refuse a missing source before a cluster is started for it."""
    if "://" not in source and not Path(source).exists():
        raise Refused(f"there is no file or zarr {source}; check the path")
