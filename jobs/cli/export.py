"""Outputs that are files: what is refused before anything is enlarged for one, and how it is
written from the zarr beside it.
"""

from pathlib import Path
from typing import Any

from tierscale.pipeline.errors import Refused
from tierscale.pipeline.formats.registry import Selection, open_image
from tierscale.pipeline.output.receipts import Folder
from tierscale.pipeline.plan.plan import Options
from tierscale.pipeline.run.verify import finished
from tierscale.pipeline.storage.atomic import write_json
from tierscale.pipeline.storage.sidecar import sidecar

# In the folder beside an output: the files exported from it, and how they were left.
EXPORTS = "exports.json"


def zarr_beside(output: str) -> str:
    """The zarr behind an output: itself, or the one beside a .tif or .png."""
    path = Path(output)
    return (
        str(path.with_suffix(".zarr"))
        if path.suffix.lower() in (".tif", ".tiff", ".png")
        else output
    )


def check_export(output: str, source: str, overwrite: bool) -> None:
    """Refuse an output that we cannot write, that is the source, or that would replace a file that
    is not our earlier export.
    """
    path, suffix = Path(output.rstrip("/")), Path(output.rstrip("/")).suffix.lower()
    if suffix not in (".zarr", ".tif", ".tiff", ".png"):
        raise Refused(f"the output {output} ends in none of .zarr, .tif, .png")
    if suffix == ".zarr":
        return
    beside = Path(zarr_beside(output))
    here, there = beside.resolve(), Path(source).resolve()
    if there in (path.resolve(), here, *here.parents) or here in there.parents:
        raise Refused(
            f"the output {output} is made from {beside}, which would lie in or around the source"
            f" {source}; choose another name"
        )
    if beside.exists() and not sidecar(str(beside)).exists():
        raise Refused(
            f"the output {output} is made from {beside}, which exists and was not made by"
            " tierscale; choose another name"
        )
    check_place(str(beside), output, overwrite)


def check_place(output: str, file: str, overwrite: bool) -> None:
    """Refuse a file within an output, and one that is there and was not exported from it."""
    path, folder = Path(file), Folder(output)
    for taken in (output, str(folder.path)):
        if "://" not in taken and Path(taken).resolve() in path.resolve().parents:
            raise Refused(
                f"{file} lies in {taken}, which holds nothing but what tierscale keeps there;"
                " choose another place"
            )
    if path.is_dir():
        raise Refused(f"{file}: it is a folder; name a file in it")
    if (
        path.exists()
        and not overwrite
        and _identity(path) != (folder.read_json(EXPORTS) or {}).get(str(path.resolve()))
    ):
        raise Refused(
            f"{file} exists and is not as it was exported from {output}; choose another name, or"
            " give --overwrite"
        )


def _identity(path: Path) -> list[int]:
    """What tells whether a file is still the one that was written."""
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]


def check_png(output: str, source: str, options: Options, max_memory: int | None) -> None:
    """Refuse an output that is a PNG of what PNG cannot hold before anything is enlarged for it."""
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


def export_to(
    output: str,
    file: str,
    compression: str,
    max_memory: int | None,
    bar: Any,
    overwrite: bool = False,
) -> None:
    """Export a finished output by the suffix of `file`, and remember that the file is ours."""
    from tierscale.pipeline.formats.metadata import PhotoMetadata
    from tierscale.pipeline.output.export.tiff import export_png, export_tiff

    folder = Folder(output)
    made = folder.plan()
    if not finished(folder, made):
        raise Refused(
            f"{output} is not finished; run the upscale command again first (tierscale status tells"
            " how far it is)"
        )
    check_place(output, file, overwrite)
    facts = PhotoMetadata.from_json(folder.read_json("facts.json"))
    suffix = Path(file).suffix.lower()

    def progress(done: int, total: int) -> None:
        bar("export", done, total)

    if suffix in (".tif", ".tiff"):
        export_tiff(
            output,
            file,
            facts,
            colour=made.colour,
            alpha=made.alpha,
            compression=compression,
            progress=progress,
        )  # type: ignore[arg-type]
    elif suffix == ".png":
        export_png(
            output,
            file,
            facts,
            colour=made.colour,
            alpha=made.alpha,
            max_bytes=max_memory or (4 << 30),
            progress=progress,
        )  # type: ignore[arg-type]
    else:
        raise Refused(f"{file} ends in neither .tif nor .png")
    written = {
        **(folder.read_json(EXPORTS) or {}),
        str(Path(file).resolve()): _identity(Path(file)),
    }
    write_json(folder.path / EXPORTS, written)
