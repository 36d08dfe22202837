"""`tierscale export` and `tierscale ingest`; and the outputs of upscale that are files."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tierscale.jobs.cli.exits import Draining, Progress
from tierscale.jobs.cli.options import answering
from tierscale.jobs.cli.terminal import emit
from tierscale.jobs.cli.types import BytesType
from tierscale.pipeline.errors import Interrupted, Refused
from tierscale.pipeline.storage.path_policy import check_lasting
from tierscale.pipeline.wording import counted, in_bytes

if TYPE_CHECKING:
    from tierscale.pipeline.output.receipts import Folder
    from tierscale.pipeline.plan.options import Options

# In the folder beside an output: the files exported from it, with their size and time.
EXPORTS = "exports.json"
# Most that writing a PNG may take where nothing was said, in bytes.
PNG_BYTES = 4 << 30
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
@click.option(
    "--overwrite",
    is_flag=True,
    help="Replace FILE where it was not exported from OUTPUT, or was changed since.",
)
@answering
def export(output: str, file: str, **cli_args: Any) -> None:
    """Write OUTPUT.zarr as FILE.tif or FILE.png, with the photo's metadata.

    A TIFF is tiled and pyramidal, and a BigTIFF where needed.
    """
    from tierscale.jobs.cli.progress import Bar

    with Draining() as draining, Bar() as bar:
        try:
            Export(
                output,
                file,
                cli_args["compression"],
                cli_args["max_memory"],
                cli_args["overwrite"],
            ).write(draining.watched(bar))
        except Interrupted:
            text = f"stopped; {file} is not written, run the same command again"
            raise draining.end(cli_args["as_json"], {"output": file}, text) from None
    size = os.path.getsize(file)
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
    check_place(str(beside), output, overwrite)


def check_place(output: str, file: str, overwrite: bool) -> None:
    """Refuse a file inside an output, and an existing one that was not exported from it."""
    from tierscale.pipeline.output.receipts import Folder

    path, folder = Path(file), Folder(output)
    for ours in (output, str(folder.path)):
        if "://" not in ours and Path(ours).resolve() in path.resolve().parents:
            raise Refused(
                f"{file} lies in {ours}, which is for tierscale's own files; choose another place"
            )
    if path.is_dir():
        raise Refused(f"{file} is a folder; name a file in it")
    if (
        path.exists()
        and not overwrite
        and _identity(path) != (folder.read_json(EXPORTS) or {}).get(str(path.resolve()))
    ):
        raise Refused(
            f"{file} exists, and was not exported from {output} or was changed since; choose"
            " another name, or give --overwrite"
        )


def _identity(path: Path) -> list[int]:
    """Size and time of a file: whether it is still the one that was written."""
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]


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


@dataclass(frozen=True, slots=True)
class Export:
    """A finished output to write as a file.

    file: ends in .tif, .tiff or .png. compression: of a TIFF, one of COMPRESSIONS. max_memory:
    bytes that writing a PNG may take. overwrite: replace a file that was not exported from output.
    """

    output: str
    file: str
    compression: str = "deflate"
    max_memory: int | None = None
    overwrite: bool = False

    def write(self, progress: Progress) -> None:
        """Write the file, and remember that it is ours. Refused: it cannot be written."""
        from tierscale.pipeline.output.receipts import Folder
        from tierscale.pipeline.run.verify import is_finished as finished
        from tierscale.pipeline.storage.atomic import write_json

        folder = Folder(self.output)
        if not finished(folder, folder.plan()):
            raise Refused(
                f"{self.output} is not finished; run the upscale command again first (tierscale"
                " status shows how far it is)"
            )
        if Path(self.file).suffix.lower() not in (".tif", ".tiff", ".png"):
            raise Refused(f"the file {self.file} does not end in .tif or .png; name one that does")
        check_lasting(self.file, "the file")
        check_place(self.output, self.file, self.overwrite)
        self._write(folder, progress)
        known = folder.read_json(EXPORTS) or {}
        known[str(Path(self.file).resolve())] = _identity(Path(self.file))
        write_json(folder.path / EXPORTS, known)

    def _write(self, folder: "Folder", progress: Progress) -> None:
        from tierscale.pipeline.formats.metadata import PhotoMetadata
        from tierscale.pipeline.output.export.common import Exported
        from tierscale.pipeline.output.export.png import export_png
        from tierscale.pipeline.output.export.tiff import export_tiff

        plan = folder.plan()
        metadata = PhotoMetadata.from_json(folder.read_json("facts.json"))
        image = Exported(self.output, plan.colour, plan.alpha, metadata)
        suffix = Path(self.file).suffix.lower()

        def report(done: int, total: int) -> None:
            progress("export", done, total)

        if suffix in (".tif", ".tiff"):
            export_tiff(image, self.file, compression=self.compression, progress=report)
        else:
            export_png(image, self.file, max_bytes=self.max_memory or PNG_BYTES, progress=report)
