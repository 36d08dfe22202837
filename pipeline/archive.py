"""What lies in an archive: its images, with what tells whether one was changed."""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import Refused
from pipeline.images import SUFFIXES
from pipeline.store import sibling

BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Seen:
    """A source as a listing shows it, without a look at its pixels.

    source: absolute path or URI. bytes: its size; of a zarr, that of all its files. mtime_ns: last change, nanoseconds since the epoch; of
    a zarr, that of its newest file. etag: what an object store says instead, or None.
    """

    source: str
    bytes: int
    mtime_ns: int
    etag: str | None = None


def scan(root: str, problem: Callable[[str], None], below: str = "") -> Iterator[Seen]:
    """All images in the tree at `root`, folder by folder in the order of names; `below` limits it to one folder of the tree.

    An image is what has the suffix of one; a zarr is one image. Hidden names, linked folders, outputs of ours and what lies beside them are
    passed over. problem: is told, in a sentence, of each folder that cannot be read and each name that cannot be written down.
    Refused: there is no such tree.
    """
    base = os.path.join(os.path.abspath(root), below)
    if not os.path.isdir(base):
        raise Refused(f"there is no archive {base}; check the path, or whether its disk is mounted")
    try:
        entries = sorted(os.scandir(base), key=lambda entry: entry.name)
    except OSError as error:
        problem(f"the folder {shown(base)} cannot be read ({error.strerror}); what lies below it is not looked at, change its rights")
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        suffix = os.path.splitext(entry.name)[1].lower()
        if shown(entry.path) != entry.path:
            problem(f"the name of {shown(entry.path)} is no UTF-8 and cannot be written down; give it another name")
        elif entry.is_dir(follow_symlinks=False):
            if suffix == ".zarr":
                if not sibling(entry.path).exists():
                    yield _zarr(entry.path)
            elif suffix != ".tierscale":
                yield from scan(root, problem, os.path.relpath(entry.path, os.path.abspath(root)))
        elif suffix in SUFFIXES and not entry.is_dir():
            yield _file(entry.path)


def _file(path: str) -> Seen:
    """One file. A link that leads nowhere counts as empty: the attempt to enlarge it will say what is wrong with it."""
    try:
        found = os.stat(path)
    except OSError:
        return Seen(path, 0, 0)
    return Seen(path, found.st_size, found.st_mtime_ns)


def _zarr(path: str) -> Seen:
    """A zarr folder by its files. Files that vanish or cannot be read meanwhile count as none."""
    total = newest = 0
    for parent, _, names in os.walk(path):
        for name in names:
            try:
                found = os.stat(os.path.join(parent, name))
            except OSError:
                continue
            total, newest = total + found.st_size, max(newest, found.st_mtime_ns)
    return Seen(path, total, newest)


def content_sha256(source: str) -> str | None:
    """Checksum of a local file's bytes, hex; None for what has none of its own: a zarr, an object, a file that cannot be read."""
    try:
        if not stat.S_ISREG(os.stat(source).st_mode):
            return None
        digest = hashlib.sha256()
        with open(source, "rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
    except OSError:
        return None
    return digest.hexdigest()


def output_of(source: str, root: str, output_root: str) -> str:
    """Where the enlarged image goes: below the output root as its source lies below the archive's."""
    inside = Path(source).relative_to(os.path.abspath(root))
    return str(Path(output_root) / inside.parent / f"{inside.name}.zarr")


def shown(path: str) -> str:
    """A path as text that can be printed and stored; bytes that are no UTF-8 become question marks."""
    return path.encode(errors="replace").decode()
