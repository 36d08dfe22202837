"""The files of an output's shards as they lie there: how long they are, and when they were written.

Nothing is read. What a power failure leaves behind a receipt is told by these two: a file that is
empty, cut, or gone.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tierscale.pipeline.output.levels import Key
from tierscale.pipeline.output.receipt import Receipt
from tierscale.pipeline.storage.atomic import TEMPORARY
from tierscale.pipeline.storage.object_path import ObjectPath
from tierscale.pipeline.storage.paths import Place, place
from tierscale.pipeline.storage.sidecar import LEASE_NAME, sidecar

# Ends the names of the files that zarr writes before it renames them.
ZARR_TEMPORARY = ".partial"


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A shard's file. bytes: its length. modified: when it was written, seconds since the epoch."""

    bytes: int
    modified: float


def stored_files(output: str) -> dict[Key, StoredFile]:
    """The files of all shards that lie at an output, in one listing."""
    where = place(output)
    listed = _listed(where) if isinstance(where, ObjectPath) else _walked(where)
    return {key: file for name, file in listed if (key := _key(name)) is not None}


def _listed(where: ObjectPath) -> Iterator[tuple[str, StoredFile]]:
    for entry in where.listed():
        yield entry.key, StoredFile(entry.bytes, entry.modified)


def _walked(where: Path) -> Iterator[tuple[str, StoredFile]]:
    for folder, _, names in os.walk(where):
        below = os.path.relpath(folder, where)
        for name in names:
            try:
                found = os.stat(os.path.join(folder, name))
            except FileNotFoundError:  # a temporary name of a worker that comes late
                continue
            yield f"{below}/{name}", StoredFile(found.st_size, found.st_mtime)


def _key(name: str) -> Key | None:
    """The shard whose file has this name below an output; None: it is no shard's."""
    parts = name.split("/")
    numbers = (parts[0], *parts[3:])
    if len(parts) != 5 or parts[1:3] != ["c", "0"] or not all(map(str.isdecimal, numbers)):
        return None
    return int(parts[0]), int(parts[3]), int(parts[4])


def difference(output: str, receipt: Receipt, files: Mapping[Key, StoredFile]) -> str | None:
    """How a shard's file differs from its receipt, in words; None: it is as long as it must be."""
    file = files.get(receipt.key)
    if not has_other_length(file, receipt.bytes):
        return None
    level, y, x = receipt.key
    how = "is gone" if file is None else f"has {file.bytes} bytes"
    return (
        f"{output} level {level} shard {y}.{x} {how}, its receipt says {receipt.bytes} bytes; run"
        " the same command again"
    )


def has_other_length(file: StoredFile | None, wanted: int | None) -> bool:
    """Whether a shard's file is gone or not as long as its receipt says; None: it does not say."""
    return wanted is not None and (file is None or file.bytes != wanted)


def remove_leftovers(output: str) -> None:
    """Remove what writers that were killed left behind: files under temporary names.

    For a finished output: whoever still writes there writes again what is there already.
    """
    for where in (place(output), sidecar(output)):
        if isinstance(where, Path):
            for path in where.rglob("*"):
                if _is_leftover(path):
                    path.unlink(missing_ok=True)


def _is_leftover(path: Place) -> bool:
    """Whether a name is temporary; those of leases belong to runs that wait for theirs."""
    leases = LEASE_NAME.partition(".")[0]
    return path.name.endswith((TEMPORARY, ZARR_TEMPORARY)) and not path.name.startswith(leases)
