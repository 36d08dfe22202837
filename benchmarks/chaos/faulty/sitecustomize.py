"""Faults for `make chaos`. Python imports this file by itself in every process that has its folder
on the path.

A disk that is full, or read-only, when told: where no tmpfs may be mounted, and DISKS is set. A
folder with a file DISK in it is a disk: the file holds how many bytes fit, or "ro". Calls that
would write there fail as the system's would, with two differences: a file fails when it is opened,
not in the middle, and what goes past Python is not seen.

A card that is sick: the process whose number stands in the file that SICK names makes white tiles.
"""

import builtins
import errno
import importlib.abc
import importlib.util
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

DISK = ".disk"
# Variables of the environment.
DISKS, SICK = "TIERSCALE_CHAOS_DISKS", "TIERSCALE_CHAOS_SICK"
ENGINE = "tierscale.pipeline.inference.enlarge"
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


def is_sick() -> bool:
    """Whether this process is told to make white tiles."""
    try:
        with _open(os.environ[SICK]) as file:
            return file.read() == str(os.getpid())
    except (KeyError, FileNotFoundError):
        return False


def spoilt(run: Callable[..., Any]) -> Callable[..., Any]:
    """What an engine makes of windows, white where the process is sick."""

    def instead(*arguments: Any, **named: Any) -> Any:
        made = run(*arguments, **named)
        return [(pixels * 0 + 1, macs) for pixels, macs in made] if is_sick() else made

    return instead


class SickEngines(importlib.abc.MetaPathFinder):
    """Finds the module of the engine as all others do, and spoils it when it is loaded."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        if fullname != ENGINE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def loaded(module: Any) -> None:
                load(module)
                module.Engine.run = spoilt(module.Engine.run)

            spec.loader.exec_module = loaded  # type: ignore[method-assign]
        return spec


if __name__ == "sitecustomize":
    if SICK in os.environ:
        sys.meta_path.insert(0, SickEngines())
    if DISKS in os.environ:
        io.open = builtins.open = opened  # type: ignore[assignment]
        os.open = opened_low
        os.mkdir = guarded(os.mkdir)
        for name in ("unlink", "remove", "rmdir", "rename", "replace"):
            setattr(os, name, guarded(getattr(os, name), frees=True))
