"""The boundary around decoders: errors become one sentence, memory is checked before."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from tierscale.pipeline.errors import Damaged, Refused, Unreachable, one_line
from tierscale.pipeline.storage.failures import UNREACHABLE
from tierscale.pipeline.storage.object_store import as_os_error
from tierscale.pipeline.wording import compared

# What a mistake in code raises. Other exceptions of ours speak of what a file holds.
MISTAKES = (AttributeError, NameError, AssertionError, TypeError)
PACKAGE = os.path.dirname(os.path.dirname(__file__)) + os.sep


@contextmanager
def decoding(uri: str, what: str = "the image") -> Iterator[None]:
    """A block in which `uri` is decoded: whatever a decoder raises leaves it as one sentence.

    Files come from strangers and decoders from a dozen authors, so this boundary takes any
    exception and keeps it as the cause; but a mistake of this package is no fault of the file, and
    passes. Refused: missing, unreadable, too large for memory, or of a kind that the decoder does
    not know. Unreachable: its disk or store fails. Damaged: anything else.
    """
    try:
        yield
    except (Refused, Damaged):
        raise
    except Exception as raised:
        if isinstance(raised, MISTAKES) and raised_here(raised):
            raise
        raise _sentence(as_os_error(raised, uri) or raised, uri, what) from raised


def raised_here(error: Exception) -> bool:
    """Whether code of this package raised an exception, and not a library that it called."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_code.co_filename.startswith(PACKAGE)


def _sentence(error: Exception, uri: str, what: str) -> Refused | Damaged:
    """The error to raise for one that was raised while `uri` was decoded."""
    match error:
        case MemoryError():
            return Refused(
                f"{uri}: {what} does not fit in memory; choose a machine with more, or a tiled"
                " format such as TIFF"
            )
        case NotImplementedError():
            return Refused(
                f"{uri}: {what} is of a kind that the decoder does not know ({one_line(error)});"
                " convert it to TIFF or PNG"
            )
        case FileNotFoundError():
            return Refused(f"{uri}: there is no such file; check the path")
        case ImportError():
            return Refused(
                f"{uri}: opening it needs another package ({one_line(error)}); install it, or copy"
                " the file to a local disk"
            )
        case PermissionError():
            advice = "the credentials and rights" if "://" in uri else "its permissions"
            return Refused(f"{uri}: may not be read ({error.strerror}); check {advice}")
        case OSError(errno=number) if number in UNREACHABLE:
            where = "object store" if "://" in uri else "disk"
            return Unreachable(
                f"{uri}: {what} cannot be read ({error.strerror}); check its {where}, then run the"
                " same command again"
            )
    return Damaged(
        f"{uri}: {what} cannot be decoded ({one_line(error)}); the file is damaged or cut short,"
        " fetch it again"
    )


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
