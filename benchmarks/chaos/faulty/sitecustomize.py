"""A disk that is full, or read-only, when told: for `make chaos` where no tmpfs may be mounted.
Python imports this file by itself in every process that has its folder on the path.

A folder with a file DISK in it is a disk: the file holds how many bytes fit, or "ro". Calls that
would write there fail as the system's would, with two differences: a file fails when it is opened,
not in the middle, and what goes past Python is not seen.
"""

import builtins
import errno
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

DISK = ".disk"
_open = io.open


def used(disk: Path) -> int:
    """Bytes of all files on a disk."""
    total = 0
    for folder, _, names in os.walk(disk):
        for name in names:
            try:
                total += os.stat(os.path.join(folder, name)).st_size
            except FileNotFoundError:  # it has just been taken away
                continue
    return total


def refuse(path: Any, frees: bool = False) -> None:
    """OSError where the disk that a path lies on does not let it be written. frees: what is done
    takes no room.
    """
    if not isinstance(path, str | bytes | os.PathLike):
        return
    for parent in Path(os.fsdecode(path)).absolute().parents:
        if os.path.exists(parent / DISK):
            with _open(parent / DISK) as file:
                instruction = file.read()
            if instruction == "ro":
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), os.fsdecode(path))
            if not frees and used(parent) >= int(instruction):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fsdecode(path))
            return


def guarded(call: Callable[..., Any], frees: bool = False) -> Callable[..., Any]:
    """A call that changes what lies at the path it is first given."""

    def instead(path: Any, *more: Any, **named: Any) -> Any:
        refuse(path, frees)
        return call(path, *more, **named)

    return instead


def opened(file: Any, mode: str = "r", *more: Any, **named: Any) -> Any:
    """open(), which refuses to write."""
    if set(mode) & set("wax+"):
        refuse(file)
    return _open(file, mode, *more, **named)


def opened_low(
    path: Any, flags: int, *more: Any, _open: Callable[..., int] = os.open, **named: Any
) -> int:
    """os.open(), which refuses to write."""
    if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        refuse(path)
    return _open(path, flags, *more, **named)


if __name__ == "sitecustomize":
    io.open = builtins.open = opened  # type: ignore[assignment]
    os.open = opened_low
    os.mkdir = guarded(os.mkdir)
    for name in ("unlink", "remove", "rmdir", "rename", "replace"):
        setattr(os, name, guarded(getattr(os, name), frees=True))
