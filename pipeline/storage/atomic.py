"""Files that are written whole or not at all, locally and in object stores, and stay written.

A local file is written under a temporary name, put on the disk, and renamed, and then its folder is
put on the disk too: a reader sees all of it or nothing, also after the power fails. Object stores
promise the same of every put.
"""

import json
import uuid
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import takewhile
from pathlib import Path
from typing import Any, TypeAlias

from tierscale.pipeline.storage.failures import storage_failure
from tierscale.pipeline.storage.object_path import ObjectPath
from tierscale.pipeline.storage.paths import Place, sync_file, sync_folder

Content: TypeAlias = bytes | memoryview
# Ends the names of files that are being written.
TEMPORARY = ".tmp"
# Files that wait for the disk at the same time: it then takes them in one go.
AT_ONCE = 8


def write_json(path: Place, content: Mapping[str, Any], durable: bool = True) -> None:
    """Write a JSON file whole or not at all; raises what write_bytes does."""
    write_bytes(path, as_json(content), durable)


def as_json(content: Mapping[str, Any]) -> bytes:
    """What write_json writes."""
    return json.dumps(content, indent=1).encode()


def write_bytes(path: Place, content: Content, durable: bool = True) -> None:
    """Write a file, and the folders above it, whole or not at all.

    It is on the disk when this returns, unless it need not be `durable`: what nobody needs after
    the power has failed. DiskFull: no space is left. Refused: nothing may be written there.
    Damaged: the write failed.
    """
    write_files({path: content}, durable)


def write_files(files: Mapping[Place, Content], durable: bool = True) -> None:
    """Write some files as write_bytes does, and wait for the disk once.

    Each has its name when it is whole; they get their names in the order in which they are given.
    """
    local = {path: content for path, content in files.items() if isinstance(path, Path)}
    try:
        for path, content in files.items():
            if isinstance(path, ObjectPath):
                path.write_bytes(bytes(content))
        try:
            _write_local(local, durable)
        except FileNotFoundError:
            # A run that closed this output took a temporary file for one of a killed writer.
            _write_local(local, durable)
    except OSError as error:
        raise storage_failure(str(next(iter(files))), error) from error


def _write_local(files: Mapping[Path, Content], durable: bool) -> None:
    mark = f".{uuid.uuid4().hex[:12]}{TEMPORARY}"
    temporary = {path: path.with_name(path.name + mark) for path in files}
    try:
        changed = [folder for path in files for folder in _make_folders(path.parent)]
        for path, content in files.items():
            temporary[path].write_bytes(content)
        if durable:
            # Renamed before its content is on the disk, a file may be empty after the power fails.
            _each(sync_file, temporary.values())
        for path in files:
            temporary[path].replace(path)
    except OSError:
        for path in temporary.values():
            path.unlink(missing_ok=True)
        raise
    if durable:
        _each(sync_folder, {*changed, *(path.parent for path in files)})


def _make_folders(folder: Path) -> list[Path]:
    """Make a folder and those above it; the folders in which names are new."""
    absent = list(takewhile(lambda one: not one.is_dir(), (folder, *folder.parents)))
    folder.mkdir(parents=True, exist_ok=True)
    return [one.parent for one in absent]


def _each(sync: Callable[[Path], None], paths: Collection[Path]) -> None:
    """Sync some paths at a time; what one of them raises is raised."""
    if len(paths) == 1:
        sync(*paths)
        return
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="sync") as threads:
        list(threads.map(sync, paths))
