"""Local paths and URIs behind one interface, so that the rest need not know where a file lies."""

import os
import shutil
from pathlib import Path
from typing import TypeAlias

from tierscale.pipeline.storage.object_path import ObjectPath

Place: TypeAlias = Path | ObjectPath


def place(path: str) -> Place:
    """Where a local path, a file:// URI or the URI of an object points."""
    path = path.removeprefix("file://")
    return ObjectPath(path) if "://" in path else Path(path)


def normalize_root(root: str) -> str:
    """A folder or URI in the form in which paths below it are compared with it.

    A local one becomes absolute and loses file://; none ends in a slash.
    """
    root = root.removeprefix("file://")
    return root.rstrip("/") if "://" in root else os.path.abspath(root)


def join_path(root: str, *parts: str) -> str:
    """A place below a folder or a URI, as text."""
    return "/".join((root.rstrip("/"), *parts)) if "://" in root else str(Path(root, *parts))


def exists(where: Place) -> bool:
    """Whether anything has this name, even a link that leads nowhere."""
    return where.exists() or where.is_symlink()


def readable(path: str) -> bool:
    """Whether the first byte of a file can be read, or a folder holds anything. Asks once."""
    where = place(path)
    if isinstance(where, ObjectPath):
        return where.answers()
    try:
        if where.is_dir():
            return next(where.iterdir(), None) is not None
        with open(where, "rb") as file:
            file.read(1)
    except OSError:
        return False
    return True


def remove_tree(path: Place, last: str = "") -> None:
    """Delete a folder with all it holds, if it is there.

    last: name of what goes last in an object store, where an interruption may leave half of the
    objects behind.
    """
    if isinstance(path, ObjectPath):
        path.delete_all(last)
    else:
        shutil.rmtree(path, ignore_errors=True)
