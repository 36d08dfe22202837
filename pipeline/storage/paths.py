"""Places in object stores, used as pathlib.Path is used for local files, so that the rest need not
know where a file lies.

A single object is put whole or not at all: that is what the stores promise, and all that the rest
relies on. Requests that fail for a passing reason (errors of the server, resets, no answer) are
repeated with growing pauses; what lasts is raised as OSError.
"""

import fnmatch
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import total_ordering
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, PreconditionError

from tierscale.pipeline.storage.object_store import asked, store_at
from tierscale.pipeline.storage.path_policy import check_secrets


@dataclass(frozen=True, slots=True)
class Listed:
    """An object as a listing shows it. key: below the listed place. modified: seconds since the
    epoch.
    """

    key: str
    bytes: int
    etag: str
    modified: float


@total_ordering
class ObjectPath:
    """The object with a URI, such as s3://bucket/a/b.json, or all those whose names begin with it
    and a slash.
    """

    def __init__(self, uri: str) -> None:
        check_secrets(uri)
        self.uri = uri.rstrip("/")
        parts = urlsplit(self.uri.replace("?", "%3F").replace("#", "%23"))
        self.base, self.key = (
            f"{parts.scheme}://{parts.netloc}",
            self.uri[len(parts.scheme) + 3 + len(parts.netloc) :].lstrip("/"),
        )

    def __truediv__(self, name: str) -> "ObjectPath":
        return ObjectPath(f"{self.uri}/{name}")

    def __str__(self) -> str:
        return self.uri

    def __repr__(self) -> str:
        return f"ObjectPath({self.uri!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectPath) and self.uri == other.uri

    def __lt__(self, other: "ObjectPath") -> bool:
        return self.uri < other.uri

    def __hash__(self) -> int:
        return hash(self.uri)

    @property
    def name(self) -> str:
        return self.uri.rsplit("/", 1)[1]

    @property
    def parent(self) -> "ObjectPath":
        return ObjectPath(self.uri.rsplit("/", 1)[0])

    def read_bytes(self) -> bytes:
        """Content of the object. FileNotFoundError: there is none."""
        return asked(self.uri, lambda: bytes(obstore.get(store_at(self.base), self.key).bytes()))

    def read_text(self) -> str:
        """Content of the object as UTF-8."""
        return self.read_bytes().decode()

    def write_bytes(self, content: bytes) -> None:
        """Put the object, whole or not at all."""
        asked(self.uri, lambda: obstore.put(store_at(self.base), self.key, content))

    def create(self, content: bytes) -> bool:
        """Put the object if there is none; False: there is one."""
        return self._put_if(content, "create")

    def exchange(self, content: bytes, etag: str) -> bool:
        """Put the object in the place of the one that has this etag; False: that one is gone."""
        return self._put_if(content, {"e_tag": etag})

    def _put_if(self, content: bytes, mode: Any) -> bool:
        def put() -> bool:
            try:
                obstore.put(store_at(self.base), self.key, content, mode=mode, use_multipart=False)
            except (AlreadyExistsError, PreconditionError, FileNotFoundError):
                return False
            return True

        # A repeated request may find what the first one put, whose answer was lost.
        return asked(self.uri, put) or (self.exists() and self.read_bytes() == content)

    def listed(self) -> list[Listed]:
        """All objects below this place, by name."""
        prefix = f"{self.key}/" if self.key else ""
        found = asked(
            self.uri,
            lambda: [
                meta
                for batch in obstore.list(store_at(self.base), prefix=prefix or None)
                for meta in batch
            ],
        )
        below = ((str(meta["path"]), meta) for meta in found)
        rows = [
            Listed(
                path.removeprefix(prefix),
                meta["size"],
                str(meta["e_tag"]),
                meta["last_modified"].timestamp(),
            )
            for path, meta in below
            if path.startswith(prefix)
        ]
        return sorted(rows, key=lambda row: row.key)

    def stat(self) -> os.stat_result:
        """Size and time of last change of the object. FileNotFoundError: there is none."""
        found = self.head()
        return os.stat_result(
            (0, 0, 0, 0, 0, 0, found.bytes, found.modified, found.modified, found.modified)
        )

    def head(self) -> Listed:
        """The object as a listing shows it. FileNotFoundError: there is none."""
        meta = asked(self.uri, lambda: obstore.head(store_at(self.base), self.key))
        return Listed(
            self.name, meta["size"], str(meta["e_tag"]), meta["last_modified"].timestamp()
        )

    def exists(self) -> bool:
        """Whether there is such an object, or one below."""
        try:
            self.head()
        except FileNotFoundError:
            return self.is_dir()
        return True

    def is_dir(self) -> bool:
        """Whether there are objects below."""
        return next(self.iterdir(), None) is not None

    def is_symlink(self) -> bool:
        """Object stores have none."""
        return False

    def iterdir(self) -> Iterator["ObjectPath"]:
        """What lies directly below, by name. What lies deeper is not listed: it may be millions."""
        prefix = f"{self.key}/" if self.key else None
        found = asked(
            self.uri, lambda: obstore.list_with_delimiter(store_at(self.base), prefix=prefix)
        )
        paths = [*found["common_prefixes"], *(str(meta["path"]) for meta in found["objects"])]
        for name in sorted({path.rstrip("/").rsplit("/", 1)[-1] for path in paths}):
            yield self / name

    def glob(self, pattern: str) -> Iterator["ObjectPath"]:
        """Objects below whose names match, part by part."""
        wanted = pattern.split("/")
        for row in self.listed():
            parts = row.key.split("/")
            if len(parts) == len(wanted) and all(map(fnmatch.fnmatchcase, parts, wanted)):
                yield self / row.key

    def unlink(self, missing_ok: bool = False) -> None:
        """Delete the object. FileNotFoundError: there is none."""
        if not missing_ok:
            self.head()
        asked(self.uri, lambda: obstore.delete(store_at(self.base), self.key))

    def delete_all(self, last: str = "") -> None:
        """Delete all objects below; last: name of the one that goes last."""
        keys = [f"{self.key}/{row.key}" if self.key else row.key for row in self.listed()]
        for some in (
            [key for key in keys if not key.endswith(f"/{last}")],
            [key for key in keys if key.endswith(f"/{last}")],
        ):
            if some:
                asked(self.uri, lambda some=some: obstore.delete(store_at(self.base), some))  # type: ignore[misc]

    def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing: object stores have no folders."""

    def rmdir(self) -> None:
        """Nothing: object stores have no folders."""


# Typed as a Path wherever it goes: what is used of one, an ObjectPath has.
Place = Path


def place(path: str) -> Place:
    """Where a local path or a URI points: a Path or an ObjectPath."""
    path = path.removeprefix("file://")
    return cast(Path, ObjectPath(path)) if "://" in path else Path(path)


def normalize_root(root: str) -> str:
    """A folder or a URI as what lies below it is compared with it: a local one absolute and without
    file://, no slash at the end.
    """
    root = root.removeprefix("file://")
    return root.rstrip("/") if "://" in root else os.path.abspath(root)


def join_path(root: str, *parts: str) -> str:
    """A place below a folder or a URI, as text."""
    return "/".join((root.rstrip("/"), *parts)) if "://" in root else str(Path(root, *parts))


def taken(where: Place) -> bool:
    """Whether there is something of this name, be it a link that leads nowhere."""
    return where.exists() or where.is_symlink()


def remove_tree(path: Place, last: str = "") -> None:
    """Delete a file or a folder with all it holds, if it is there. last: name of what goes last in
    an object store, where half of the rest may stay behind after an interruption.
    """
    if isinstance(path, ObjectPath):
        path.delete_all(last)
    else:
        shutil.rmtree(path, ignore_errors=True)


def zarr_store(path: str) -> Any:
    """What zarr opens for a local path or a URI."""
    where = place(path)
    if not isinstance(where, ObjectPath):
        return str(where)
    from tierscale.pipeline.storage.zarr_store import patient_store

    return patient_store(where.uri)
