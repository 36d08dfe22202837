"""The lease of the run that is at work on an output: who holds it, taking it, and telling whether
its owner lives.
"""

import contextlib
import errno
import json
import logging
import os
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from tierscale.pipeline.errors import Damaged, Held, Refused
from tierscale.pipeline.output.receipts import Folder, write_json
from tierscale.pipeline.output.store import storage_failure
from tierscale.pipeline.storage.paths import ObjectPath, Place

log = logging.getLogger(__name__)

# A lease that was not renewed for this many seconds is taken over.
LEASE_SECONDS = 120.0
# What file systems say that know no hard links.
NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK)


class Lease:
    """The right to write one output; a context in which a thread renews it.

    It keeps two runs from doing the same work. Should two hold it after all, nothing is harmed:
    shards are pure and written whole. clock: seconds since the epoch, handed in so that tests can
    jump.
    """

    def __init__(self, folder: Folder, clock: Callable[[], float] = time.time) -> None:
        self.file = folder.path / "lease.json"
        self.clock = clock
        self.owner = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": clock(),
            "token": uuid.uuid4().hex,
        }
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    def __enter__(self) -> "Lease":
        try:
            self._take()
        except OSError as error:
            raise storage_failure(str(self.file), error) from error
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()
        # Where nothing can be written any more, the lease stays, and is known as that of a dead
        # process.
        with contextlib.suppress(OSError):
            if (self._held() or {}).get("token") == self.owner["token"]:
                self.file.unlink(missing_ok=True)
            # a run that failed before it had a plan leaves no folder behind
            self.file.parent.rmdir()

    def _take(self) -> None:
        """Put our lease in the place of none or of a dead one."""
        if isinstance(self.file, ObjectPath):
            self._take_object(self.file)
            return
        mine = self.file.with_name(f"lease.{self.owner['token']}.tmp")
        write_json(mine, {**self.owner, "renewed": self.clock()})
        try:
            for _ in range(2):
                if _placed(mine, self.file):
                    return
                self._refuse_living(self._held())
                self._clear()
        finally:
            mine.unlink(missing_ok=True)
        raise Held(f"another run took {self.file} at this moment; wait for it to end")

    def _take_object(self, file: ObjectPath) -> None:
        """The same in an object store, which puts an object only where there is none, or in the
        place of a known one.
        """
        mine = json.dumps({**self.owner, "renewed": self.clock()}).encode()
        for _ in range(2):
            if file.create(mine):
                return
            with contextlib.suppress(FileNotFoundError):
                etag = file.head().etag
                self._refuse_living(self._held())
                if file.exchange(mine, etag):
                    return
        raise Held(f"another run took {file} at this moment; wait for it to end")

    def _clear(self) -> None:
        """Take a dead lease away; one that another run put in its place meanwhile is put back."""
        aside = self.file.with_name(f"lease.{self.owner['token']}.dead")
        try:
            self.file.rename(aside)
        except FileNotFoundError:
            return
        if living(_lease_in(aside), self.clock()):
            _placed(aside, self.file)
        aside.unlink(missing_ok=True)

    def _held(self) -> dict[str, Any] | None:
        return _lease_in(self.file)

    def _refuse_living(self, held: dict[str, Any] | None) -> None:
        if held is not None and living(held, self.clock()):
            age = self.clock() - held["renewed"]
            raise Held(
                f"process {held['pid']} on {held['host']} is writing {self.file.parent} (last sign"
                f" {max(age, 0):.0f} s ago); wait for it to end, or stop it"
            )

    def _keep(self) -> None:
        """Renew until the context ends, or until another run has taken over."""
        while not self._over.wait(LEASE_SECONDS / 6):
            try:
                if (self._held() or {}).get("token") != self.owner["token"]:
                    return
                write_json(self.file, {**self.owner, "renewed": self.clock()})
            except (OSError, Damaged, Refused) as error:
                log.warning("the lease could not be renewed: %s", error)


def _lease_in(file: Place) -> dict[str, Any] | None:
    """Whose lease a file is; None where there is none or a crash tore it."""
    try:
        held = json.loads(file.read_text())
        return held if {"host", "pid", "renewed"} <= set(held) else None
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _placed(mine: Path, place: Path) -> bool:
    """Give a whole file a second name, in one step; False: the name is taken."""
    try:
        os.link(mine, place)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        # File systems without hard links, such as exFAT: the name is taken first, and holds nothing
        # for a moment.
        try:
            os.close(os.open(place, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        shutil.copyfile(mine, place)
    return True


def living(held: Mapping[str, Any] | None, now: float) -> bool:
    """Whether the owner of a lease is still at work at `now`, seconds since the epoch."""
    if held is None or (held["host"] == socket.gethostname() and not _alive(held["pid"])):
        return False
    return now - held["renewed"] < LEASE_SECONDS


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
