"""The lease of the run that writes an output: acquired, renewed, told apart from a dead one."""

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
from tierscale.pipeline.storage.atomic import write_json
from tierscale.pipeline.storage.failures import storage_failure
from tierscale.pipeline.storage.object_path import ObjectPath
from tierscale.pipeline.storage.paths import Place
from tierscale.pipeline.storage.sidecar import LEASE_NAME

log = logging.getLogger(__name__)

# A lease that was not renewed for this many seconds is taken over.
LEASE_SECONDS = 120.0
# What file systems say that know no hard links.
NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK)


class Lease:
    """The right to write one output; a context in which a thread renews it.

    It keeps two runs from doing the same work. Should two hold it after all, nothing is harmed:
    shards are pure and written whole.
    folder: the folder beside the output. clock: seconds since the epoch; tests pass their own.
    Held: another run that is alive has it.
    """

    def __init__(self, folder: Place, clock: Callable[[], float] = time.time) -> None:
        self.file = folder / LEASE_NAME
        self.clock = clock
        self.owner = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": clock(),
            "token": uuid.uuid4().hex,
        }
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    def __enter__(self) -> "Lease":
        try:
            if isinstance(self.file, ObjectPath):
                self._acquire_object(self.file)
            else:
                self._acquire_file(self.file)
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
        self._ended.set()
        self._thread.join()
        # Where nothing can be written any more, the lease stays; it is known as that of a dead
        # process.
        with contextlib.suppress(OSError):
            if (lease_in(self.file) or {}).get("token") == self.owner["token"]:
                self.file.unlink(missing_ok=True)
            # A run that failed before it had a plan leaves no folder behind.
            self.file.parent.rmdir()

    def _acquire_file(self, file: Path) -> None:
        """Put this lease where there is none, or in the place of a dead one."""
        mine = file.with_name(f"lease.{self.owner['token']}.tmp")
        # After the power has failed, the owner of a lease is gone, and the lease may go too.
        write_json(mine, {**self.owner, "renewed": self.clock()}, durable=False)
        try:
            for _ in range(2):
                if _placed(mine, file):
                    return
                self._refuse_living(lease_in(file))
                self._remove_dead(file)
        finally:
            mine.unlink(missing_ok=True)
        raise Held(f"another run acquired {file} at this moment; wait for it to end")

    def _acquire_object(self, file: ObjectPath) -> None:
        """The same in an object store, by puts that depend on what is there."""
        mine = json.dumps({**self.owner, "renewed": self.clock()}).encode()
        for _ in range(2):
            if file.create(mine):
                return
            with contextlib.suppress(FileNotFoundError):
                etag = file.head().etag
                self._refuse_living(lease_in(file))
                if file.exchange(mine, etag):
                    return
        raise Held(f"another run acquired {file} at this moment; wait for it to end")

    def _remove_dead(self, file: Path) -> None:
        """Remove a dead lease; one that another run put in its place meanwhile is put back."""
        aside = file.with_name(f"lease.{self.owner['token']}.dead")
        try:
            file.rename(aside)
        except FileNotFoundError:
            return
        if living(lease_in(aside), self.clock()):
            _placed(aside, file)
        aside.unlink(missing_ok=True)

    def _refuse_living(self, lease: dict[str, Any] | None) -> None:
        if lease is not None and living(lease, self.clock()):
            age = self.clock() - lease["renewed"]
            raise Held(
                f"process {lease['pid']} on {lease['host']} is writing {self.file.parent} (last"
                f" sign {max(age, 0):.0f} s ago); wait for it to end, or stop it"
            )

    def _renew(self) -> None:
        """Renew until the context ends, or until another run has taken over."""
        while not self._ended.wait(LEASE_SECONDS / 6):
            try:
                if (lease_in(self.file) or {}).get("token") != self.owner["token"]:
                    return
                write_json(self.file, {**self.owner, "renewed": self.clock()}, durable=False)
            except (OSError, Damaged, Refused) as error:
                log.warning("the lease could not be renewed: %s", error)


def lease_in(file: Place) -> dict[str, Any] | None:
    """Whose lease a file is; None where there is none or a crash left half of one."""
    try:
        lease = json.loads(file.read_text())
        return lease if {"host", "pid", "renewed"} <= set(lease) else None
    except (FileNotFoundError, ValueError, TypeError):
        return None


def living(lease: Mapping[str, Any] | None, now: float) -> bool:
    """Whether the owner of a lease is still at work at `now`, seconds since the epoch."""
    if lease is None or (lease["host"] == socket.gethostname() and not _alive(lease["pid"])):
        return False
    return now - lease["renewed"] < LEASE_SECONDS


def _placed(mine: Path, name: Path) -> bool:
    """Give a whole file a second name, in one step; False: something has that name."""
    try:
        os.link(mine, name)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        # File systems without hard links, such as exFAT: the name is created first, and is empty
        # for a moment.
        try:
            os.close(os.open(name, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        shutil.copyfile(mine, name)
    return True


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
