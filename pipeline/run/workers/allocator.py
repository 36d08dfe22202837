"""The C allocator of a process that works through shards for hours: freed memory goes back to the
machine instead of into holes.

glibc raises its mmap threshold to 32 MiB as large blocks are freed, and keeps one heap for each
thread; the buffers of a shard then lie scattered between small ones, and the process grows with the
number of shards. On other C libraries nothing is done.
"""

import ctypes
import sys

# Of malloc.h. Blocks from LARGE_BLOCK on get pages of their own, which go back when they are freed;
# networks' maps of a band of rows are smaller. What is free at the end of a heap is kept up to
# KEPT, until give_back(). At 2 MiB, and with glibc's 128 KiB for KEPT, a third of CARN's time went
# into fresh pages; so set, CARN takes a tenth less than by glibc's own rules (measured, two
# threads, 562x562).
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
LARGE_BLOCK, KEPT = 8 << 20, 64 << 20
HEAPS = 2


def _glibc() -> ctypes.CDLL | None:
    """The C library, where it is glibc."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None


def settle() -> None:
    """Give large blocks pages of their own from now on, keep what small ones leave, and let all
    threads share a few heaps.
    """
    if library := _glibc():
        library.mallopt(_MMAP_THRESHOLD, LARGE_BLOCK)
        library.mallopt(_TRIM_THRESHOLD, KEPT)
        library.mallopt(_ARENA_MAX, HEAPS)


def give_back() -> None:
    """Return the free pages of all heaps to the machine; some milliseconds."""
    if library := _glibc():
        library.malloc_trim(0)
