"""The boundary around decoders: errors become one sentence, memory is checked before."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from tierscale.pipeline.errors import Damaged, Refused, one_line
from tierscale.pipeline.wording import compared


@contextmanager
def decoding(uri: str, what: str = "the image") -> Iterator[None]:
    """A block in which `uri` is decoded: whatever a decoder raises leaves it as one sentence.

    Files come from strangers and decoders from a dozen authors, so this boundary takes any
    exception and keeps it as the cause. Refused: missing, unreadable or too large for memory.
    Damaged: anything else.
    """
    try:
        yield
    except (Refused, Damaged):
        raise
    except MemoryError as error:
        raise Refused(
            f"{uri}: {what} does not fit in memory; choose a machine with more, or a tiled format"
            " such as TIFF"
        ) from error
    except FileNotFoundError as error:
        raise Refused(f"{uri}: there is no such file; check the path") from error
    except ImportError as error:
        raise Refused(
            f"{uri}: opening it needs another package ({one_line(error)}); install it, or copy the"
            " file to a local disk"
        ) from error
    except PermissionError as error:
        raise Refused(
            f"{uri}: may not be read ({error.strerror}); check its permissions"
        ) from error
    except Exception as error:
        raise Damaged(
            f"{uri}: {what} cannot be decoded ({one_line(error)}); the file is damaged or cut"
            " short, fetch it again"
        ) from error


def half_of_memory() -> int:
    """Half the memory of this machine, in bytes: what one decoder may use by default."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def check_decode(uri: str, needed: int, max_bytes: int | None) -> None:
    """Refuse what needs more than `max_bytes` to decode; sizes in bytes. Call before decoding.

    max_bytes: None means half of this machine's memory.
    """
    allowed = half_of_memory() if max_bytes is None else max_bytes
    if needed > allowed:
        takes, may = compared(needed, allowed)
        raise Refused(
            f"{uri}: decoding takes {takes}, but only {may} may be used;"
            f" give --max-memory {needed} or more, or convert it to a tiled TIFF"
        )
