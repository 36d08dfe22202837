"""Places in object stores, with the methods of pathlib.Path that the rest of tierscale uses.

A single object is put whole or not at all: that is what the stores promise, and all that the rest
relies on. Requests that fail for a passing reason (errors of the server, resets, no answer) are
repeated with growing pauses; what lasts is raised as OSError.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial, total_ordering
from typing import IO, TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    GenericError,
    PreconditionError,
)

from tierscale.pipeline.storage.object_store import (
    list_directly,
    list_objects,
    requests_to,
    status_of,
    store_at,
    with_retries,
)
from tierscale.pipeline.storage.path_policy import check_secrets

if TYPE_CHECKING:
    from obstore import ObjectMeta, PutMode
    from obstore.store import ObjectStore


Answer = TypeVar("Answer")
# Keys that one request deletes, as S3 allows.
DELETED_AT_ONCE = 1000
BAD_REQUEST = 400


@dataclass(frozen=True, slots=True)
class Listed:
    """An object as a listing shows it.

    key: name below the listed place. bytes: its size. modified: seconds since the epoch.
    """

    key: str
    bytes: int
    etag: str
    modified: float


@total_ordering
class ObjectPath:
    """The object with a URI such as s3://bucket/a/b.json, and the folder of all objects below it.

    base: URI of the bucket. key: name inside it.
    """

    def __init__(self, uri: str) -> None:
        check_secrets(uri)
        self.uri = uri.rstrip("/")
        parts = urlsplit(self.uri.replace("?", "%3F").replace("#", "%23"))
        self.base = f"{parts.scheme}://{parts.netloc}"
        self.key = self.uri[len(self.base) :].lstrip("/")

    def __truediv__(self, name: str) -> ObjectPath:
        return ObjectPath(f"{self.uri}/{name}")

    def __str__(self) -> str:
        return self.uri

    def __repr__(self) -> str:
        return f"ObjectPath({self.uri!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectPath) and self.uri == other.uri

    def __lt__(self, other: ObjectPath) -> bool:
        return self.uri < other.uri

    def __hash__(self) -> int:
        return hash(self.uri)

    @property
    def name(self) -> str:
        """The part after the last slash."""
        return self.uri.rsplit("/", 1)[1]

    @property
    def parent(self) -> ObjectPath:
        """The place without its last part."""
        return ObjectPath(self.uri.rsplit("/", 1)[0])

    def read_bytes(self) -> bytes:
        """Content of the object. FileNotFoundError: there is none."""
        return self._ask(lambda store: bytes(obstore.get(store, self.key).bytes()))

    def read_text(self) -> str:
        """Content of the object as UTF-8. FileNotFoundError: there is none."""
        return self.read_bytes().decode()

    def write_bytes(self, content: bytes) -> None:
        """Put the object, whole or not at all."""
        with requests_to(self.uri):
            obstore.put(store_at(self.base), self.key, content)

    def download(self, file: IO[bytes]) -> None:
        """Write the content of the object into an open file, in pieces."""
        with requests_to(self.uri):
            for piece in obstore.get(store_at(self.base), self.key).stream():
                file.write(piece)

    def create(self, content: bytes) -> bool:
        """Put the object if there is none; False: there is one."""
        return self._put_if(content, "create")

    def exchange(self, content: bytes, etag: str) -> bool:
        """Put the object in the place of the one that has this etag; False: that one is gone."""
        return self._put_if(content, {"e_tag": etag})

    def _put_if(self, content: bytes, mode: PutMode) -> bool:
        def put(store: ObjectStore) -> bool:
            try:
                obstore.put(store, self.key, content, mode=mode, use_multipart=False)
            except (AlreadyExistsError, PreconditionError, FileNotFoundError):
                return False
            return True

        if self._ask(put):
            return True
        # A repeated request may find what the first one put, whose answer was lost.
        return self.exists() and self.read_bytes() == content

    def listed(self) -> list[Listed]:
        """All objects below this place, by name."""
        prefix = f"{self.key}/" if self.key else ""
        rows = [
            _listed(meta["path"].removeprefix(prefix), meta)
            for meta in list_objects(self.base, prefix)
            if meta["path"].startswith(prefix)
        ]
        return sorted(rows, key=lambda row: row.key)

    def stat(self) -> os.stat_result:
        """Size and time of last change of the object. FileNotFoundError: there is none."""
        head = self.head()
        return os.stat_result(
            (0, 0, 0, 0, 0, 0, head.bytes, head.modified, head.modified, head.modified)
        )

    def head(self) -> Listed:
        """The object as a listing shows it. FileNotFoundError: there is none."""
        return _listed(self.name, self._ask(self._head))

    def _head(self, store: ObjectStore) -> ObjectMeta:
        try:
            return obstore.head(store, self.key)
        except GenericError as error:
            # The answer to a HEAD has no body, and 400 alone does not tell expired credentials from
            # what may pass. The answer to a GET says why.
            if status_of(error) == BAD_REQUEST:
                obstore.get_range(store, self.key, start=0, end=1)
            raise

    def exists(self) -> bool:
        """Whether there is such an object, or one below."""
        try:
            self.head()
        except FileNotFoundError:
            return self.is_dir()
        return True

    def answers(self) -> bool:
        """Whether there is such an object, or one below, and the store says so when asked once."""
        store = store_at(self.base, False)
        try:
            try:
                obstore.head(store, self.key)
            except FileNotFoundError:
                below = obstore.list_with_delimiter(store, prefix=f"{self.key}/")
                return bool(below["objects"] or below["common_prefixes"])
        except BaseError:
            return False
        return True

    def is_dir(self) -> bool:
        """Whether there are objects below."""
        return next(self.iterdir(), None) is not None

    def is_file(self) -> bool:
        """Whether there is such an object."""
        try:
            self.head()
        except FileNotFoundError:
            return False
        return True

    def is_symlink(self) -> bool:
        """False: object stores have no links."""
        return False

    def iterdir(self) -> Iterator[ObjectPath]:
        """What lies directly below, by name. What lies deeper is not listed: it may be millions."""
        keys = list_directly(self.base, f"{self.key}/" if self.key else "")
        for name in sorted({key.rstrip("/").rsplit("/", 1)[-1] for key in keys}):
            yield self / name

    def glob(self, pattern: str) -> Iterator[ObjectPath]:
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
        self._ask(lambda store: obstore.delete(store, self.key))

    def delete_all(self, last: str = "") -> None:
        """Delete all objects below; last: name of the one that goes last."""
        keys = [f"{self.key}/{row.key}" if self.key else row.key for row in self.listed()]
        late = [key for key in keys if key.endswith(f"/{last}")] if last else []
        for some in ([key for key in keys if key not in late], late):
            for first in range(0, len(some), DELETED_AT_ONCE):
                batch = some[first : first + DELETED_AT_ONCE]
                self._ask(partial(obstore.delete, paths=batch))

    def _ask(self, request: Callable[[ObjectStore], Answer]) -> Answer:
        """The answer to one request, which is repeated while errors may pass."""
        return with_retries(self.uri, lambda: request(store_at(self.base, False)))

    def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing: object stores have no folders."""

    def rmdir(self) -> None:
        """Nothing: object stores have no folders."""


def _listed(key: str, meta: ObjectMeta) -> Listed:
    return Listed(key, meta["size"], str(meta["e_tag"]), meta["last_modified"].timestamp())
