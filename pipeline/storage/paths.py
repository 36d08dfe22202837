"""Local paths and URIs behind one interface, so that the rest need not know where a file lies."""

import errno
import os
import shutil
from pathlib import Path
from typing import TypeAlias

from tierscale.pipeline.storage.object_path import ObjectPath

Place: TypeAlias = Path | ObjectPath
# What file systems say that cannot put the names in a folder on their disk by themselves, and
# folders whose names may not be listed.
NO_FOLDER_SYNC = (errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EACCES)


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

    last: name of what goes last, because an interruption may leave half of the rest behind.
    """
    if isinstance(path, ObjectPath):
        path.delete_all(last)
    elif exists(path):
        for entry in path.iterdir() if last and path.is_dir() else ():
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
        shutil.rmtree(path, ignore_errors=True)
        sync_folder(path.parent)


def sync_file(path: Path) -> None:
    """Wait until the content of a file is on its disk. OSError: it cannot be written there."""
    _sync(path, os.O_RDONLY)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on its disk: what was created, renamed or removed there.

    A file that was written and renamed without it may be gone after the power fails. OSError: they
    cannot be written there; a file system that cannot do it is no error.
    """
    try:
        _sync(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        if error.errno not in NO_FOLDER_SYNC:
            raise


def sync_tree(root: Path) -> None:
    """Wait until all files below a folder, and their names, are on its disk."""
    for folder, _, names in os.walk(root, topdown=False):
        for name in names:
            sync_file(Path(folder, name))
        sync_folder(Path(folder))


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
