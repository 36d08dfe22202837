"""Whether a source is the same one again: a short dictionary that goes into the plan."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from tierscale.pipeline.formats.source import Identity, Stamp
from tierscale.pipeline.plan.options import Selection

ZARR_METADATA = ("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")
# Files up to this size are digested whole, others by their first and last BLOCK; bytes.
WHOLE_DIGEST = 256 << 20
BLOCK = 1 << 20
# Digests that a process remembers, by path and stamp.
REMEMBERED = 256
# Clocks of file systems tick at least this often: a file written twice inside one tick keeps its
# stamp. Seconds.
TICK = 0.02

_digests: OrderedDict[tuple[str, Stamp], str] = OrderedDict()
_lock = threading.Lock()


def stamp_of(path: str) -> Stamp:
    """The stamp of a local file as it is now. OSError: there is none."""
    stat = os.stat(path)
    return Stamp(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)


def file_identity(path: str, form: str, selection: Selection) -> Identity:
    """Identity of one local file; its content is read once for each stamp that the file has.

    Files up to 256 MiB are digested whole. Larger ones by size, time of last change and their first
    and last MiB, because reading a terabyte twice costs more than the mistake it guards against.
    """
    stamp = settled_stamp(path)
    identity: Identity = {"format": form, "bytes": stamp.bytes, "selection": selected(selection)}
    with _lock:
        digest = _digests.get((path, stamp))
    if digest is None:
        digest = content_digest(path, stamp.bytes)
        with _lock:
            _digests[path, stamp] = digest
            while len(_digests) > REMEMBERED:
                _digests.popitem(last=False)
    if stamp.bytes <= WHOLE_DIGEST:
        return identity | {"sha256": digest}
    return identity | {"mtime_ns": stamp.mtime_ns, "sha256_ends": digest}


def settled_stamp(path: str) -> Stamp:
    """The stamp of a file, waiting until a change from now on would give it another one."""
    stamp = stamp_of(path)
    age = time.time() - max(stamp.mtime_ns, stamp.ctime_ns) / 1e9
    if 0 <= age < TICK:
        time.sleep(TICK - age)
        stamp = stamp_of(path)
    return stamp


def content_digest(path: str, size: int) -> str:
    """SHA-256 of a file of `size` bytes, in hex: of all of it, or of both ends of a large one."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        if size <= WHOLE_DIGEST:
            while block := file.read(BLOCK):
                digest.update(block)
        else:
            digest.update(file.read(BLOCK))
            file.seek(-BLOCK, os.SEEK_END)
            digest.update(file.read(BLOCK))
    return digest.hexdigest()


def folder_identity(folder: str, form: str, selection: Selection) -> Identity:
    """Identity of a zarr in a local folder.

    Its metadata count by content; its chunks by name, size and time of last change.
    """
    digest, total = hashlib.sha256(), 0
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(parent, name)
            stat = os.stat(path)
            total += stat.st_size
            digest.update(f"{os.path.relpath(path, folder)}\0{stat.st_size}\0".encode())
            if name in ZARR_METADATA:
                digest.update(Path(path).read_bytes())
            else:
                digest.update(f"{stat.st_mtime_ns}\0".encode())
    return {
        "format": form,
        "bytes": total,
        "selection": selected(selection),
        "sha256_listing": digest.hexdigest(),
    }


def selected(selection: Selection) -> str:
    """A selection as text, such as "series=0 level=1 z=3"; what was not chosen is left out."""
    parts = {
        "series": selection.series,
        "level": selection.level or None,
        "z": selection.z,
        "t": selection.t,
    }
    return " ".join(f"{name}={value}" for name, value in parts.items() if value is not None)


def array_identity(array: Any, axes: str) -> Identity:
    """Identity of an array: numpy by content, others by name.

    Beyond WHOLE_DIGEST bytes the content is that of the first and last BLOCK.
    """
    shape, dtype = tuple(array.shape), np.dtype(array.dtype)
    identity: Identity = {
        "format": "array",
        "bytes": int(np.prod(shape)) * dtype.itemsize,
        "selection": f"{axes} {shape} {dtype}",
    }
    if not isinstance(array, np.ndarray):
        name = getattr(array, "name", None) or getattr(array, "store", None)
        return identity | {"name": str(name or type(array).__name__)}
    digest = hashlib.sha256()
    ends = [array] if array.nbytes <= WHOLE_DIGEST else [_end(array, 0), _end(array, -1)]
    for part in ends:
        digest.update(np.ascontiguousarray(part).tobytes())
    return identity | {"sha256": digest.hexdigest()}


def _end(array: np.ndarray, last: int) -> np.ndarray:
    """The first (0) or last (-1) entries of an array: BLOCK bytes, or a few rows."""
    while array.ndim > 1 and array[0].nbytes > BLOCK:
        array = array[last]
    count = 1 + BLOCK // array[0].nbytes
    return array[-count:] if last else array[:count]
