"""What an operating system's error about a place means, as one sentence."""

import errno

from tierscale.pipeline.errors import Damaged, DiskFull, Refused

# Error numbers of places where nothing may be written.
DENIED = (errno.EROFS, errno.EACCES, errno.EPERM)
FULL = (errno.ENOSPC, errno.EDQUOT)
# Error numbers of a disk, a mount or a server that fails, whatever file was asked for.
UNREACHABLE = frozenset(
    {
        *(errno.EIO, errno.EREMOTEIO, errno.ESTALE, errno.ENODEV, errno.ENXIO, errno.ENOMEDIUM),
        *(errno.ENOTCONN, errno.ESHUTDOWN, errno.ECONNABORTED, errno.ECONNREFUSED),
        *(errno.ECONNRESET, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH),
        *(errno.ENETDOWN, errno.ENETUNREACH),
    }
)


def storage_failure(path: str, error: OSError) -> Refused | Damaged:
    """The error to raise for a failed write to `path`, or a failed read where one must succeed.

    DiskFull: no space is left. Refused: nothing may be written there. Damaged: anything else.
    """
    if error.errno in FULL:
        return DiskFull(
            f"the disk that holds {path} is full; free some space and run the same command again:"
            " finished shards are kept"
        )
    if error.errno in DENIED:
        return Refused(
            f"{path} cannot be written ({error.strerror}); choose another output or change its"
            " permissions"
        )
    return Damaged(f"{path} cannot be written or read ({error.strerror or error})")
