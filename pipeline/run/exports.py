"""Finished outputs written as what other programs read, never over what is not ours."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tierscale.pipeline.errors import Refused
from tierscale.pipeline.formats.metadata import PhotoMetadata
from tierscale.pipeline.output.export.common import Exported
from tierscale.pipeline.output.export.deep_zoom import INDEX, export_deep_zoom
from tierscale.pipeline.output.export.ome_zarr import export_ome_zarr
from tierscale.pipeline.output.export.png import export_png
from tierscale.pipeline.output.export.tiff import export_cog, export_tiff
from tierscale.pipeline.output.receipts import Folder
from tierscale.pipeline.run.verify import is_finished
from tierscale.pipeline.storage.atomic import write_json
from tierscale.pipeline.storage.path_policy import check_lasting

# In the folder beside an output: what was exported from it, with its size and time.
EXPORTS = "exports.json"
# Most that writing a PNG may take where nothing was said, in bytes.
PNG_BYTES = 4 << 30
TIFF, PNG = (".tif", ".tiff"), (".png",)
# Kinds of exports that are folders, and the file in each that stands for it.
FOLDERS = {"ome-zarr": ".zattrs", "dzi": INDEX}


@dataclass(frozen=True, slots=True)
class Export:
    """A finished output to write as something else.

    file: where to. kind: "cog", "ome-zarr" or "dzi"; None: a TIFF or PNG, by the ending of `file`.
    compression: of a TIFF. max_memory: bytes that writing a PNG may take. overwrite: replace what
    was not exported from output.
    """

    output: str
    file: str
    kind: str | None = None
    compression: str = "deflate"
    max_memory: int | None = None
    overwrite: bool = False

    def write(self, progress: Callable[[str, int, int], None]) -> None:
        """Write it, and remember that it is ours. Refused: it cannot be written."""
        folder = Folder(self.output)
        if not is_finished(folder, folder.plan()):
            raise Refused(
                f"{self.output} is not finished; run the upscale command again first (tierscale"
                " status shows how far it is)"
            )
        check_name(self.file, self.kind)
        check_lasting(self.file, "the file")
        check_place(self.output, self.file, self.overwrite, self.kind)
        plan = folder.plan()
        metadata = PhotoMetadata.from_json(folder.read_json("facts.json"))
        image = Exported(self.output, plan.colour, plan.alpha, metadata)
        self._write(image, partial(progress, "export"))
        known = folder.read_json(EXPORTS) or {}
        known[str(Path(self.file).resolve())] = _identity(Path(self.file))
        write_json(folder.path / EXPORTS, known)

    def _write(self, image: Exported, progress: Callable[[int, int], None]) -> None:
        if self.kind == "ome-zarr":
            export_ome_zarr(image, self.file, progress=progress)
        elif self.kind == "dzi":
            export_deep_zoom(image, self.file, progress=progress)
        elif self.kind == "cog":
            export_cog(image, self.file, compression=self.compression, progress=progress)
        elif Path(self.file).suffix.lower() in TIFF:
            export_tiff(image, self.file, compression=self.compression, progress=progress)
        else:
            limit = self.max_memory or PNG_BYTES
            export_png(image, self.file, max_bytes=limit, progress=progress)


def check_name(file: str, kind: str | None) -> None:
    """Refuse a name that says something else than what is written, or no local one."""
    if "://" in file:
        raise Refused(f"{file} is no local path; export to a local one and copy it there")
    suffix = Path(file.rstrip("/")).suffix.lower()
    if kind is None and suffix not in TIFF + PNG:
        raise Refused(f"the file {file} does not end in .tif or .png; name one that does")
    if kind == "cog" and suffix not in TIFF:
        raise Refused(f"the file {file} does not end in .tif, as a COG does; name one that does")
    if kind == "ome-zarr" and suffix != ".zarr":
        raise Refused(f"the folder {file} does not end in .zarr; name one that does")
    if kind == "dzi" and suffix in (*TIFF, *PNG, ".jpg", ".jpeg", ".zarr", ".dzi", ".xml"):
        raise Refused(
            f"{file} has the ending {suffix} and would be a folder of tiles; name a folder"
        )


def check_place(output: str, file: str, overwrite: bool, kind: str | None = None) -> None:
    """Refuse a place inside an output, and what lies there and was not exported from it.

    A folder is replaced only where it is an export of the same kind.
    """
    path, folder = Path(file), Folder(output)
    ours = [Path(one).resolve() for one in (output, str(folder.path)) if "://" not in one]
    for one in ours:
        if one == path.resolve() or one in path.resolve().parents:
            raise Refused(
                f"{file} lies in {one}, which is for tierscale's own files; choose another place"
            )
        if kind in FOLDERS and path.resolve() in one.parents:
            raise Refused(f"{file} holds {one}, which it would replace; choose another place")
    if path.is_dir() and kind not in FOLDERS:
        raise Refused(f"{file} is a folder; name a file in it")
    if kind in FOLDERS and path.exists() and not (path / FOLDERS[kind]).exists():
        if path.is_dir() and not any(path.iterdir()):
            return
        raise Refused(f"{file} exists and holds no {kind} export; choose another name")
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
    """Size and time of a file, or of the one that stands for a folder: whether it is the same."""
    marks = [path / name for name in FOLDERS.values() if (path / name).is_file()]
    stat = next(iter(marks), path).stat()
    return [stat.st_size, stat.st_mtime_ns]


def bytes_of(file: str) -> int:
    """Bytes of a file, or of all in a folder."""
    if not os.path.isdir(file):
        return os.path.getsize(file)
    return sum(one.stat().st_size for one in Path(file).rglob("*") if one.is_file())
