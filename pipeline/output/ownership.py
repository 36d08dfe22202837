"""Whose an output is: that of a plan, of tierscale, or somebody else's, which is never touched."""

import re
from collections.abc import Sequence
from pathlib import Path

from tierscale.pipeline.errors import Damaged, Refused
from tierscale.pipeline.output.store import attributes_of, storage_errors
from tierscale.pipeline.storage.atomic import TEMPORARY, sync_folder
from tierscale.pipeline.storage.object_path import ObjectPath
from tierscale.pipeline.storage.paths import Place, exists, place, remove_tree
from tierscale.pipeline.storage.sidecar import sidecar

# Names that write_nodes() gives documents until all of them are on the disk.
UNNAMED = re.compile(rf"zarr\.json\.[0-9a-f]+{re.escape(TEMPORARY)}")


def matches_plan(path: str, plan: str, levels: int) -> bool:
    """Whether a group of the plan with digest `plan` and all its `levels` arrays exist at `path`.

    Refused: something else is there; what is not ours is never deleted.
    """
    if not place(path).exists():
        return False
    if _plan_of(path) != plan:
        if _is_unnamed(path):
            return False
        raise Refused(
            f"{path} was not written by the plan in {sidecar(path)}; move it away, or choose"
            " another output"
        )
    return all((place(path) / str(level) / "zarr.json").exists() for level in range(levels))


def check_plan(path: str, plan: str) -> None:
    """Damaged: the output does not belong to the plan with digest `plan` any more.

    That is so when another run started it again; a worker that comes late must not write there.
    """
    if _plan_of(path) != plan:
        raise Damaged(
            f"{path} was started again by another run during this one, which stops writing to it;"
            " wait for the other run to end"
        )


def is_ours(path: str) -> bool:
    """Whether the attributes of what lies at `path` say that tierscale wrote it."""
    return _plan_of(path) is not None


def check_ours(path: str) -> None:
    """Refuse to replace what lies at `path` unless its attributes say that tierscale wrote it."""
    if exists(place(path)) and _plan_of(path) is None and not _is_unnamed(path):
        raise Refused(
            f"{path} was not made by tierscale and is left alone; choose another output, or move it"
            " away"
        )


def remove(path: str, keep: Sequence[str]) -> None:
    """Delete an output of ours and its sibling folder's content, but for the names in `keep`.

    Refused: its attributes do not say that tierscale wrote it.
    """
    check_ours(path)
    output, folder = place(path), sidecar(path)
    with storage_errors(path):
        if isinstance(output, ObjectPath):
            # The attributes that say whose it is go last.
            remove_tree(output, last="zarr.json")
        elif output.exists():
            # Renamed first: half of an output under its own name could not be recognized as ours.
            remove_tree(folder / "replaced")
            output.rename(str(folder / "replaced"))
            sync_folder(output.parent)
        entries: list[Place] = [*folder.iterdir()] if folder.exists() else []
        for entry in entries:
            if entry.name not in keep:
                remove_tree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


def _is_unnamed(path: str) -> bool:
    """Whether a run was killed while it created the output: no document has its own name yet."""
    where = place(path)
    if not isinstance(where, Path) or not where.is_dir():
        return False
    files = (file.name for file in where.rglob("*") if not file.is_dir())
    return all(map(UNNAMED.fullmatch, files))


def _plan_of(path: str) -> str | None:
    """Digest of the plan in the attributes of a zarr group; None: no group, or none of ours."""
    ours = attributes_of(path).get("tierscale")
    return str(ours["plan"]) if isinstance(ours, dict) and "plan" in ours else None
