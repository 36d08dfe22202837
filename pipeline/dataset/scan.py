"""What lies in an archive: its images, with what tells whether one was changed."""

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tierscale.pipeline.errors import Refused
from tierscale.pipeline.formats.registry import SUFFIXES
from tierscale.pipeline.storage.object_path import Listed, ObjectPath
from tierscale.pipeline.storage.paths import join_path, place
from tierscale.pipeline.storage.sidecar import sidecar

BLOCK = 1 << 20
# Folders of outputs that are listed at a time.
AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Seen:
    """A source as a listing shows it, without a look at its pixels.

    source: absolute path or URI. bytes: its size; of a zarr, that of all its files. mtime_ns: last
    change, nanoseconds since the epoch; of a zarr, that of its newest file. etag: what an object
    store says instead, or None.
    """

    source: str
    bytes: int
    mtime_ns: int
    etag: str | None = None


def scan(root: str, problem: Callable[[str], None]) -> Iterator[Seen]:
    """All images below a folder or a URI such as s3://bucket/folder, by name. problem: as of
    scan_folder and scan_objects.
    """
    return scan_objects(root, problem) if "://" in root else scan_folder(root, problem)


def scan_objects(root: str, problem: Callable[[str], None]) -> Iterator[Seen]:
    """All images below a URI. A zarr is one image, known by its objects' names and etags. Outputs
    of ours and hidden names are passed over.

    problem: is told, in a sentence, that the listing failed.
    """
    try:
        listed = ObjectPath(root).listed()
    except OSError as error:
        problem(
            f"the archive {root} cannot be listed ({error.strerror}); check the address, the"
            " credentials and the endpoint"
        )
        return
    folders = {row.key.split(".tierscale/", 1)[0] for row in listed if ".tierscale/" in row.key}
    zarrs: dict[str, list[Listed]] = {}
    for row in listed:
        parts = row.key.split("/")
        depth = next((i for i, part in enumerate(parts) if part.endswith(".zarr")), len(parts))
        name = "/".join(parts[: depth + 1])
        if (
            any(part.startswith(".") or part.endswith(".tierscale") for part in parts[: depth + 1])
            or name in folders
        ):
            continue
        if depth < len(parts) - 1:
            zarrs.setdefault(name, []).append(row)
        elif os.path.splitext(name)[1].lower() in SUFFIXES:
            yield Seen(f"{root.rstrip('/')}/{name}", row.bytes, 0, row.etag)
    for name, rows in zarrs.items():
        digest = hashlib.sha256(
            repr([(row.key, row.bytes, row.etag) for row in rows]).encode()
        ).hexdigest()
        yield Seen(f"{root.rstrip('/')}/{name}", sum(row.bytes for row in rows), 0, digest)


def scan_folder(root: str, problem: Callable[[str], None], below: str = "") -> Iterator[Seen]:
    """All images in the tree at `root`, folder by folder in the order of names; `below` limits it
    to one folder of the tree.

    An image is what has the suffix of one; a zarr is one image. Hidden names, linked folders,
    outputs of ours and what lies beside them are passed over. problem: is told, in a sentence, of
    each folder that cannot be read and each name that cannot be written down. Refused: there is no
    such tree.
    """
    base = os.path.join(os.path.abspath(root), below)
    if not os.path.isdir(base):
        raise Refused(f"there is no archive {base}; check the path, or whether its disk is mounted")
    try:
        entries = sorted(os.scandir(base), key=lambda entry: entry.name)
    except OSError as error:
        problem(
            f"the folder {shown(base)} cannot be read ({error.strerror}); what lies below it is not"
            " looked at, change its rights"
        )
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        suffix = os.path.splitext(entry.name)[1].lower()
        if shown(entry.path) != entry.path:
            problem(
                f"the name of {shown(entry.path)} is no UTF-8 and cannot be written down; give it"
                " another name"
            )
        elif entry.is_dir(follow_symlinks=False):
            if suffix == ".zarr":
                if not sidecar(entry.path).exists():
                    yield _zarr(entry.path)
            elif suffix != ".tierscale":
                yield from scan_folder(
                    root, problem, os.path.relpath(entry.path, os.path.abspath(root))
                )
        elif suffix in SUFFIXES and not entry.is_dir():
            yield _file(entry.path)


def _file(path: str) -> Seen:
    """One file. A link that leads nowhere counts as empty: the attempt to enlarge it will say what
    is wrong, as with a pipe.
    """
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


def content_sha256(source: str, check: Callable[[], None] = lambda: None) -> str | None:
    """Checksum of a local file's bytes, hex; None for what has none of its own: a zarr, an object,
    a file that cannot be read.

    check: called before each block, because a terabyte takes hours; what it raises ends the
    reading.
    """
    check()
    try:
        if not stat.S_ISREG(os.stat(source).st_mode):
            return None
        digest = hashlib.sha256()
        with open(source, "rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
                check()
    except OSError:
        return None
    return digest.hexdigest()


def output_of(source: str, root: str, output_root: str) -> str:
    """Where the enlarged image goes: below the output root as its source lies below the
    archive's.
    """
    base = root.rstrip("/") if "://" in root else os.path.abspath(root)
    return join_path(output_root, f"{source.removeprefix(base).lstrip('/')}.zarr")


def absent(outputs: Iterable[str], problem: Callable[[str], None]) -> Iterator[str]:
    """Those outputs that are not there, or whose folder beside them is not.

    Every folder is listed once, several at a time: a look at each of 100,000 outputs would take
    minutes. problem: is told, in a sentence, of each folder that cannot be listed; what lies there
    counts as present.
    """
    wanted: dict[str, list[str]] = {}
    for output in outputs:
        folder, name = output.rsplit("/", 1)
        wanted.setdefault(folder, []).append(name)

    def lacking(folder: str) -> list[str]:
        try:
            there = {entry.name for entry in place(folder or "/").iterdir()}
        except (FileNotFoundError, NotADirectoryError):
            there = set()
        except OSError as error:
            problem(
                f"the outputs in {shown(folder)} cannot be listed ({error.strerror}); change the"
                " rights of the folder, or mend its disk"
            )
            return []
        return [
            f"{folder}/{name}" for name in wanted[folder] if not {name, sidecar(name).name} <= there
        ]

    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="outputs") as readers:
        for found in readers.map(lacking, wanted):
            yield from found


def shown(path: str) -> str:
    """A path as text that can be printed and stored; bytes that are no UTF-8 become question
    marks.
    """
    return path.encode(errors="replace").decode()
