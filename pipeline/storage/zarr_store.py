"""What zarr opens for a local path or a URI."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Self

from obstore.store import ObjectStore as Connection
from zarr.storage import ObjectStore, WrapperStore

from tierscale.pipeline.storage.object_path import ObjectPath
from tierscale.pipeline.storage.object_store import list_directly, list_objects, store_at
from tierscale.pipeline.storage.paths import place

Inner = ObjectStore[Connection]


def zarr_store(path: str) -> "str | RepeatedListings":
    """What zarr opens for a local path or a URI."""
    where = place(path)
    if not isinstance(where, ObjectPath):
        return str(where)
    return RepeatedListings(ObjectStore(store_at(where.uri)), where)


class RepeatedListings(WrapperStore[Inner]):
    """zarr's store over obstore, with listings that are repeated when their answer is cut."""

    def __init__(self, store: Inner, root: ObjectPath) -> None:
        super().__init__(store)
        self.root = root

    def _with_store(self, store: Inner) -> Self:
        return type(self)(store, self.root)

    def list(self) -> AsyncIterator[str]:
        """Keys of all objects of the store."""
        return self.list_prefix("")

    def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Keys of all objects below `prefix`."""
        return self._relative(
            lambda: [meta["path"] for meta in list_objects(self.root.base, self._key(prefix))]
        )

    def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Names directly below `prefix`."""
        key = self._key(prefix)
        return self._relative(lambda: list_directly(self.root.base, key), key)

    async def delete_dir(self, prefix: str) -> None:
        """Delete all objects below `prefix`."""
        self._check_writable()
        where = self.root / prefix.strip("/") if prefix.strip("/") else self.root
        await asyncio.to_thread(where.delete_all)

    def _key(self, prefix: str) -> str:
        """A prefix inside this store as one inside the bucket, with a slash at its end."""
        parts = [part for part in (self.root.key, prefix.strip("/")) if part]
        return "".join(f"{part}/" for part in parts)

    async def _relative(
        self, listing: Callable[[], Sequence[str]], below: str | None = None
    ) -> AsyncIterator[str]:
        """What a listing gives, without the slashes at the end and the key it is `below`."""
        start = self._key("") if below is None else below
        for key in await asyncio.to_thread(listing):
            yield key.rstrip("/").removeprefix(start)
