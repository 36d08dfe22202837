"""What zarr opens for a local path or a URI."""

import asyncio
import warnings
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Self, TypeVar

import zarr
from obstore.exceptions import BaseError
from obstore.store import ObjectStore as Connection
from zarr.abc.buffer import Buffer, BufferPrototype
from zarr.abc.store import ByteRequest
from zarr.storage import MemoryStore, ObjectStore

from tierscale.pipeline.storage.atomic import write_files
from tierscale.pipeline.storage.object_path import ObjectPath
from tierscale.pipeline.storage.object_store import (
    list_directly,
    list_objects,
    may_pass,
    pauses,
    store_at,
)
from tierscale.pipeline.storage.paths import place

Answer = TypeVar("Answer")


def zarr_store(path: str) -> "str | RepeatingStore":
    """What zarr opens for a local path or a URI."""
    where = place(path)
    return RepeatingStore(where.uri) if isinstance(where, ObjectPath) else str(where)


def write_nodes(path: str, make: Callable[[MemoryStore], object]) -> None:
    """Write groups and arrays that hold no chunks yet, as `make` makes them, the root first.

    zarr's own store does not wait for the disk: after a power failure a document may be empty, and
    what it describes is then known to nobody. Errors as of write_bytes.
    """
    nodes: dict[str, Buffer] = {}
    make(MemoryStore(nodes))
    where = place(path)
    names = sorted(nodes, key=lambda name: name.count("/"))
    write_files({where / name: nodes[name].to_bytes() for name in names})


def consolidate(path: str) -> None:
    """Write the metadata of all groups and arrays into those of the root, too.

    One request then tells all of them. zarr-python reads it; it is no part of zarr 3 yet.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(zarr_store(path), zarr_format=3)


class RepeatingStore(ObjectStore[Connection]):
    """zarr's store over obstore, whose requests are repeated as object_store says.

    uri: the root of the store.
    """

    def __init__(self, uri: str, *, read_only: bool = False) -> None:
        super().__init__(store_at(uri, False), read_only=read_only)
        self.root = ObjectPath(uri)
        # Shards are uploaded in many parts, which obstore repeats one by one.
        self.uploads = ObjectStore(store_at(uri))

    def with_read_only(self, read_only: bool = False) -> Self:
        """The same store, read-only or not."""
        return type(self)(self.root.uri, read_only=read_only)

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """An object or a part of it; None: there is none."""
        return await _with_retries(partial(super().get, key, prototype, byte_range))

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Parts of objects; None for each that is missing."""
        ranges = list(key_ranges)
        return await _with_retries(partial(super().get_partial_values, prototype, ranges))

    async def exists(self, key: str) -> bool:
        """Whether there is such an object."""
        return await _with_retries(partial(super().exists, key))

    async def getsize(self, key: str) -> int:
        """Bytes of an object. FileNotFoundError: there is none."""
        return await _with_retries(partial(super().getsize, key))

    async def set(self, key: str, value: Buffer) -> None:
        """Put an object, whole or not at all."""
        self._check_writable()
        await self.uploads.set(key, value)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Put an object if there is none."""
        await _with_retries(partial(super().set_if_not_exists, key, value))

    async def delete(self, key: str) -> None:
        """Delete an object, if it is there."""
        await _with_retries(partial(super().delete, key))

    async def delete_dir(self, prefix: str) -> None:
        """Delete all objects below `prefix`."""
        self._check_writable()
        name = prefix.strip("/")
        await asyncio.to_thread((self.root / name if name else self.root).delete_all)

    async def getsize_prefix(self, prefix: str) -> int:
        """Bytes of all objects below `prefix`."""
        listed = await asyncio.to_thread(list_objects, self.root.base, self._key(prefix))
        return sum(meta["size"] for meta in listed)

    def list(self) -> AsyncGenerator[str, None]:
        """Keys of all objects of the store."""
        return self.list_prefix("")

    def list_prefix(self, prefix: str) -> AsyncGenerator[str, None]:
        """Keys of all objects below `prefix`."""
        base, key = self.root.base, self._key(prefix)
        return self._relative(lambda: [meta["path"] for meta in list_objects(base, key)])

    def list_dir(self, prefix: str) -> AsyncGenerator[str, None]:
        """Names directly below `prefix`."""
        base, key = self.root.base, self._key(prefix)
        return self._relative(lambda: list_directly(base, key), key)

    def _key(self, prefix: str) -> str:
        """A prefix inside this store as one inside the bucket, with a slash at its end."""
        parts = [part for part in (self.root.key, prefix.strip("/")) if part]
        return "".join(f"{part}/" for part in parts)

    async def _relative(
        self, listing: Callable[[], Sequence[str]], below: str | None = None
    ) -> AsyncGenerator[str, None]:
        """What a listing gives, without slashes at its end and the key that it is `below`."""
        start = self._key("") if below is None else below
        for key in await asyncio.to_thread(listing):
            yield key.rstrip("/").removeprefix(start)


async def _with_retries(request: Callable[[], Awaitable[Answer]]) -> Answer:
    """As object_store.with_retries; errors stay those of obstore."""
    remaining = pauses()
    while True:
        try:
            return await request()
        except BaseError as error:
            if not remaining or not may_pass(error):
                raise
        await asyncio.sleep(remaining.pop(0))
