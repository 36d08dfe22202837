"""Whether a source is the same one again: a short dictionary that goes into the plan."""

from __future__ import annotations

import hashlib
import os

from tierscale.pipeline.plan.options import Selection

WHOLE_DIGEST = 256 << 20
END = 1 << 20


def file_identity(path: str, form: str, selection: Selection) -> dict[str, str | int]:
    """Identity of one file.

    Files up to 256 MiB are digested whole. Larger ones by size, time of last change and their first
    and last MiB, because reading a terabyte twice costs more than the mistake it guards against.
    """
    stat = os.stat(path)
    identity: dict[str, str | int] = {
        "format": form,
        "bytes": stat.st_size,
        "selection": selected(selection),
    }
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        if stat.st_size <= WHOLE_DIGEST:
            while block := file.read(END):
                digest.update(block)
            return identity | {"sha256": digest.hexdigest()}
        digest.update(file.read(END))
        file.seek(-END, os.SEEK_END)
        digest.update(file.read(END))
    return identity | {"mtime_ns": stat.st_mtime_ns, "sha256_ends": digest.hexdigest()}


def folder_identity(folder: str, form: str, selection: Selection) -> dict[str, str | int]:
    """Identity of a zarr in a local folder: metadata by content; chunks by name, size and time of
    last change.
    """
    digest, total = hashlib.sha256(), 0
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(parent, name)
            stat = os.stat(path)
            total += stat.st_size
            digest.update(f"{os.path.relpath(path, folder)}\0{stat.st_size}\0".encode())
            if name in ("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata"):
                with open(path, "rb") as file:
                    digest.update(file.read())
            else:
                digest.update(f"{stat.st_mtime_ns}\0".encode())
    return {
        "format": form,
        "bytes": total,
        "selection": selected(selection),
        "sha256_listing": digest.hexdigest(),
    }


def selected(selection: Selection) -> str:
    """A selection as text, such as "series=0 level=1 z=3"; what was not asked for is left out."""
    parts = {
        "series": selection.series,
        "level": selection.level or None,
        "z": selection.z,
        "t": selection.t,
    }
    return " ".join(f"{name}={value}" for name, value in parts.items() if value is not None)
