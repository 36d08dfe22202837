"""What lies in an archive: its images, with what tells whether one was changed."""

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from tierscale.pipeline.errors import Refused
from tierscale.pipeline.formats.registry import SUFFIXES, is_output
from tierscale.pipeline.storage.object_path import Listed, ObjectPath
from tierscale.pipeline.storage.paths import place
from tierscale.pipeline.storage.sidecar import SIDECAR_SUFFIX, sidecar

BLOCK = 1 << 20
# Folders of outputs that are listed at a time.
AT_ONCE = 16

# Called with a sentence on something that could not be listed.
Problem = Callable[[str], None]


def refuse(text: str) -> None:
    """A Problem for those who accept none. Refused: always."""
    raise Refused(text)


@dataclass(frozen=True, slots=True)
class ListedSource:
    """A source as a listing shows it; its pixels are not read.

    source: the root that was scanned, and the path below it. bytes: its size; of a zarr, that of
    all its files. mtime_ns: last change, nanoseconds since the epoch; of a zarr, that of its newest
    file; 0 in an object store. etag: what an object store says instead, or None. modified: when its
    newest object was put, seconds since the epoch; 0 for files.
    """

    source: str
    bytes: int
    mtime_ns: int
    etag: str | None = None
    modified: float = 0.0

    @property
    def changed(self) -> float:
        """When it was changed last, seconds since the epoch."""
        return self.modified or self.mtime_ns / 1e9


def scan(root: str, problem: Problem) -> Iterator[ListedSource]:
    """All images below a folder or a URI such as s3://bucket/folder, by name.

    An image is what has the suffix of one; a zarr is one image, whatever lies in it. Passed over
    are hidden names, linked folders, and outputs of ours (a name with NAME.tierscale beside it)
    with all that lies in them. problem: called for each folder that cannot be listed and each name
    that is not UTF-8. Refused: there is no such folder, or it lies inside an output of ours.
    """
    _refuse_outputs(root)
    if "://" in root:
        yield from _scan_objects(root, problem)
    elif os.path.isdir(root):
        yield from _scan_folder(root, problem)
    else:
        raise Refused(f"there is no folder {root}; check the path, or whether its disk is mounted")


def _refuse_outputs(root: str) -> None:
    """Refuse a root inside an output of ours: all images there are results."""
    path = root.rstrip("/") if "://" in root else os.path.realpath(root)
    while path and not path.endswith("/"):
        if is_output(path):
            raise Refused(
                f"{root} lies inside {path.removesuffix(SIDECAR_SUFFIX)}, which is an output of"
                " tierscale; name the folder of its sources"
            )
        path = path.rpartition("/")[0]


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES


def _is_zarr(name: str) -> bool:
    return name.lower().endswith(".zarr")


def _skipped(name: str, beside: frozenset[str] | set[str]) -> bool:
    """Whether a name is hidden, of an output of ours, or of the folder beside one.

    beside: the names in the same folder, or the full ones where `name` is full.
    """
    last = name.rsplit("/", 1)[-1]
    return (
        last.startswith(".") or last.endswith(SIDECAR_SUFFIX) or f"{name}{SIDECAR_SUFFIX}" in beside
    )


def _scan_objects(root: str, problem: Problem) -> Iterator[ListedSource]:
    try:
        listed = ObjectPath(root).listed()
    except OSError as error:
        problem(
            f"the archive {root} cannot be listed ({error.strerror}); check the address, the"
            " credentials and the endpoint"
        )
        return
    beside = {
        f"{row.key.split(f'{SIDECAR_SUFFIX}/', 1)[0]}{SIDECAR_SUFFIX}"
        for row in listed
        if f"{SIDECAR_SUFFIX}/" in row.key
    }
    images: dict[str, list[Listed]] = {}
    for row in listed:
        name = _image_of(row.key)
        if name is not None and not any(_skipped(part, beside) for part in _prefixes(name)):
            images.setdefault(name, []).append(row)
    for name, rows in sorted(images.items()):
        yield _listed_objects(f"{root.rstrip('/')}/{name}", name, rows)


def _listed_objects(source: str, name: str, rows: list[Listed]) -> ListedSource:
    """An image in an object store by its objects."""
    size, modified = sum(row.bytes for row in rows), max(row.modified for row in rows)
    return ListedSource(source, size, 0, _etag(name, rows), modified)


def _image_of(key: str) -> str | None:
    """The image that an object belongs to: the outermost zarr, itself, or None."""
    for name in _prefixes(key):
        if _is_zarr(name):
            return name
    return key if _is_image(key) else None


def _prefixes(key: str) -> Iterator[str]:
    """A key's folders from the outermost one on, then the key."""
    parts = key.split("/")
    return ("/".join(parts[: depth + 1]) for depth in range(len(parts)))


def _etag(name: str, rows: list[Listed]) -> str:
    """What tells a change of an image: its object's etag, or a digest of those of a zarr."""
    if len(rows) == 1 and rows[0].key == name:
        return rows[0].etag
    content = repr([(row.key, row.bytes, row.etag) for row in rows])
    return hashlib.sha256(content.encode()).hexdigest()


def _scan_folder(folder: str, problem: Problem) -> Iterator[ListedSource]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        problem(
            f"the folder {as_utf8(folder)} cannot be read ({error.strerror}); what lies below it is"
            " left out, change its rights"
        )
        return
    names = {entry.name for entry in entries}
    for entry in entries:
        if _skipped(entry.name, names):
            continue
        path = os.path.join(folder, entry.name)
        if as_utf8(path) != path:
            problem(
                f"the name of {as_utf8(path)} is not UTF-8 and cannot be recorded; give it"
                " another name"
            )
        elif not entry.is_dir(follow_symlinks=False):
            if _is_image(entry.name) and not entry.is_dir():
                yield from _listed_or_told(path, problem)
        elif _is_zarr(entry.name):
            yield _listed_zarr(path)
        else:
            yield from _scan_folder(path, problem)


def _listed_or_told(path: str, problem: Problem) -> Iterator[ListedSource]:
    """A file, if it is still there; what cannot be looked at is a problem, and no change."""
    try:
        yield _listed_file(path)
    except FileNotFoundError:
        return
    except OSError as error:
        problem(f"{path} cannot be looked at ({error.strerror}); check its disk")


def look(source: str, root: str) -> ListedSource | None:
    """One source below `root` once more, as scan() lists it; None: it cannot be looked at."""
    where, name = place(source), source[len(root.rstrip("/")) + 1 :]
    try:
        if not isinstance(where, ObjectPath):
            return _listed_zarr(source) if os.path.isdir(source) else _listed_file(source)
        if not _is_zarr(name):
            return _listed_objects(source, name, [replace(where.head(), key=name)])
        rows = [replace(row, key=f"{name}/{row.key}") for row in where.listed()]
        return _listed_objects(source, name, rows) if rows else None
    except OSError:
        return None


def _listed_file(path: str) -> ListedSource:
    """One file. OSError: it cannot be looked at.

    A link that leads nowhere counts as empty: the attempt to enlarge it will say what is wrong.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError:
        os.lstat(path)
        return ListedSource(path, 0, 0)
    return ListedSource(path, status.st_size, status.st_mtime_ns)


def _listed_zarr(path: str) -> ListedSource:
    """A zarr folder by its files. Files that vanish or cannot be read meanwhile count as none."""
    total = newest = 0
    for parent, _, names in os.walk(path):
        for name in names:
            try:
                status = os.stat(os.path.join(parent, name))
            except OSError:
                continue
            total, newest = total + status.st_size, max(newest, status.st_mtime_ns)
    return ListedSource(path, total, newest)


def content_sha256(source: str, check: Callable[[], None] = lambda: None) -> str | None:
    """SHA-256 of a local file's bytes, in hex.

    None for what has none of its own: a zarr, an object, a file that cannot be read. check: called
    before each block, because a terabyte takes hours; what it raises ends the reading.
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


def missing_outputs(outputs: Iterable[str], problem: Problem) -> Iterator[str]:
    """Those outputs that are not there, or whose folder beside them is not.

    Every folder is listed once, several at a time: to check each of 100,000 outputs would take
    minutes. problem: called for each folder that cannot be listed; what lies there counts as
    present.
    """
    wanted: dict[str, list[str]] = {}
    for output in outputs:
        folder, name = output.rsplit("/", 1)
        wanted.setdefault(folder, []).append(name)

    def missing(folder: str) -> list[str]:
        try:
            names = {entry.name for entry in place(folder or "/").iterdir()}
        except (FileNotFoundError, NotADirectoryError):
            names = set()
        except OSError as error:
            problem(
                f"the outputs in {as_utf8(folder)} cannot be listed ({error.strerror}); change the"
                " rights of the folder, or mend its disk"
            )
            return []
        return [
            f"{folder}/{name}" for name in wanted[folder] if not {name, sidecar(name).name} <= names
        ]

    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="outputs") as readers:
        for outputs_of_folder in readers.map(missing, wanted):
            yield from outputs_of_folder


def as_utf8(path: str) -> str:
    """A path as text that can be stored; bytes that are not UTF-8 become question marks."""
    return path.encode(errors="replace").decode()
