"""Image files of object stores, fetched to the local disk once, because decoders read files."""

import atexit
import errno
import shutil
import tempfile
import threading
from collections import OrderedDict
from pathlib import Path

from tierscale.pipeline.errors import Refused
from tierscale.pipeline.storage.object_path import Listed, ObjectPath
from tierscale.pipeline.wording import compared

# Files that a process keeps, so that one which is described, ingested and checked at the end is
# fetched once.
KEPT = 2

_files: OrderedDict[tuple[str, str], Path] = OrderedDict()
_lock = threading.Lock()


def download(uri: str) -> tuple[Path, Listed]:
    """A local file with the content of an object, and what the store says of the object.

    Refused: there is no room for it. OSError: it cannot be fetched.
    """
    where = ObjectPath(uri)
    head = where.head()
    with _lock:
        local = _files.get((uri, head.etag))
        if local is None:
            while len(_files) >= KEPT:
                shutil.rmtree(_files.popitem(last=False)[1].parent, ignore_errors=True)
            local = _files[uri, head.etag] = _fetch(where, head)
        _files.move_to_end((uri, head.etag))
        return local, head


def _fetch(where: ObjectPath, head: Listed) -> Path:
    temporary = tempfile.gettempdir()
    free = shutil.disk_usage(temporary).free
    if head.bytes > free:
        takes, left = compared(head.bytes, free)
        raise Refused(
            f"{where} takes {takes}, and {temporary} has {left} free;"
            " set TMPDIR to a folder on a larger disk"
        )
    folder = Path(tempfile.mkdtemp(prefix="tierscale-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    local = folder / where.name
    with open(local, "wb") as file:
        where.download(file)
    if local.stat().st_size != head.bytes:
        ended = f"the answer ended after {local.stat().st_size} of {head.bytes} bytes"
        raise OSError(errno.EIO, ended, str(where))
    return local
