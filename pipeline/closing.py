"""Objects that are closed at the end of a with statement."""

from types import TracebackType
from typing import Self


class Closing:
    """What holds files, memory or threads until close(), which a with statement calls."""

    __slots__ = ()

    def close(self) -> None:
        """Release what is held."""
        raise NotImplementedError(f"{type(self).__name__} holds nothing; write its close()")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
