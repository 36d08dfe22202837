"""A zarr store in an object store whose requests are repeated when they fail for a passing
reason.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, TypeVar

from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import ObjectStore, WrapperStore

from tierscale.pipeline.storage.object_store import pauses, store_at, worth_repeating

Answer = TypeVar("Answer")


def patient_store(uri: str) -> "PatientStore":
    """The store that is rooted at a URI."""
    return PatientStore(ObjectStore(store_at(uri)))


class PatientStore(WrapperStore[Store]):
    """obstore itself repeats most requests; those whose answer was cut in the middle are repeated
    here. All of them may be.
    """

    async def _insist(self, request: Callable[[], Awaitable[Answer]]) -> Answer:
        for pause in pauses():
            try:
                return await request()
            except Exception as error:
                if not worth_repeating(error):
                    raise
            await asyncio.sleep(pause)
        return await request()

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        return await self._insist(lambda: self._store.get(key, prototype, byte_range))  # type: ignore[arg-type]

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        ranges = list(key_ranges)
        return await self._insist(lambda: self._store.get_partial_values(prototype, ranges))

    async def exists(self, key: str) -> bool:
        return await self._insist(lambda: self._store.exists(key))

    async def set(self, key: str, value: Buffer, *arguments: Any) -> None:
        await self._insist(lambda: self._store.set(key, value, *arguments))

    async def delete(self, key: str) -> None:
        await self._insist(lambda: self._store.delete(key))

    async def delete_dir(self, prefix: str) -> None:
        await self._insist(lambda: self._store.delete_dir(prefix))

    async def _listed(self, listing: Callable[[], AsyncIterator[str]]) -> AsyncIterator[str]:
        async def whole() -> list[str]:
            return [name async for name in listing()]

        for name in await self._insist(whole):
            yield name

    def list(self) -> AsyncIterator[str]:
        return self._listed(self._store.list)

    def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        return self._listed(lambda: self._store.list_prefix(prefix))

    def list_dir(self, prefix: str) -> AsyncIterator[str]:
        return self._listed(lambda: self._store.list_dir(prefix))
