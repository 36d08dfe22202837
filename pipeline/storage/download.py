"""Image files of object stores, brought to the local disk once, because decoders read files."""

import atexit
import shutil
import tempfile
import threading
from collections import OrderedDict
from pathlib import Path

import obstore

from tierscale.pipeline.errors import Refused
from tierscale.pipeline.storage.object_store import asked, store_at
from tierscale.pipeline.storage.paths import Listed, ObjectPath

# Files that a process keeps: one that is described, ingested and checked at the end is fetched
# once.
KEPT = 2

_files: OrderedDict[tuple[str, str], Path] = OrderedDict()
_lock = threading.Lock()


def fetched(uri: str) -> tuple[Path, Listed]:
    """A local file with the content of an object, and what the store says of it. Refused: there is
    no room for it.
    """
    where = ObjectPath(uri)
    found = where.head()
    with _lock:
        known = _files.get((uri, found.etag))
        if known is None:
            while len(_files) >= KEPT:
                shutil.rmtree(_files.popitem(last=False)[1].parent, ignore_errors=True)
            known = _files[uri, found.etag] = _fetch(where, found)
        _files.move_to_end((uri, found.etag))
        return known, found


def _fetch(where: ObjectPath, found: Listed) -> Path:
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if found.bytes > free:
        place = tempfile.gettempdir()
        raise Refused(
            f"{where} takes {found.bytes / 2**30:.2f} GiB, and {place} has {free / 2**30:.2f} GiB"
            " free; set TMPDIR to a larger disk"
        )
    folder = Path(tempfile.mkdtemp(prefix="tierscale-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    local = folder / where.name

    def fetch() -> None:
        with open(local, "wb") as file:
            for block in obstore.get(store_at(where.base), where.key).stream():
                file.write(block)

    asked(where.uri, fetch)
    if local.stat().st_size != found.bytes:
        raise OSError(f"{where} ended after {local.stat().st_size} of {found.bytes} bytes")
    return local
