"""A SQLite file that one process at a time may write: marked as ours and held by a lease."""

import os
import socket
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tierscale.pipeline.closing import Closing
from tierscale.pipeline.errors import Damaged, Refused
from tierscale.pipeline.storage.lease import LEASE_SECONDS, living
from tierscale.pipeline.storage.path_policy import check_secrets

# Seconds to wait for another process that is writing.
LOCK_SECONDS = 30
LEASE = (
    "CREATE TABLE lease (one INTEGER PRIMARY KEY CHECK (one = 1), host TEXT, pid INTEGER, token"
    " TEXT, started REAL, renewed REAL)"
)


class Busy(Exception):
    """Another process holds the lease; the text says which."""


class Database(Closing):
    """The SQLite file at `path`, created with `schema` where there is none.

    schema: statements with semicolons between them. mark: number by which the file is known as
    ours. clock: seconds since the epoch; tests pass their own. One thread uses a Database; the
    lease is renewed by another one with a connection of its own. Others may read at any time.
    Refused: the file is none of ours. Damaged: it cannot be read or written.
    """

    def __init__(
        self, path: str, schema: str, mark: int, clock: Callable[[], float] = time.time
    ) -> None:
        self.path, self.clock = path, clock
        self.owner = {"host": socket.gethostname(), "pid": os.getpid(), "token": uuid.uuid4().hex}
        check_secrets(path)
        if not Path(path).absolute().parent.is_dir():
            raise Refused(f"there is no folder for {path}; make it first")
        with self._errors():
            self.connection = self._connect()
            self._make(schema, mark)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=LOCK_SECONDS, isolation_level=None)
        connection.row_factory = sqlite3.Row
        # Readers see whole states while one writes; what a power failure takes of the last moments
        # is only done again.
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        return connection

    def _make(self, schema: str, mark: int) -> None:
        """Create the tables in a new file. Refused: it is a database of something else."""
        self.connection.execute("BEGIN IMMEDIATE")
        marked = self.connection.execute("PRAGMA application_id").fetchone()[0]
        empty = self.connection.execute("SELECT 1 FROM sqlite_master").fetchone() is None
        if marked == 0 and empty:
            for statement in (*schema.split(";"), LEASE, f"PRAGMA application_id = {mark}"):
                self.connection.execute(statement)
        self.connection.execute("COMMIT")
        if marked != mark and not (marked == 0 and empty):
            self.close()
            raise Refused(f"{self.path} is a database of something else; name another file")

    def close(self) -> None:
        """Let go of the file."""
        self.connection.close()

    def do(self, statement: str, *values: Any) -> sqlite3.Cursor:
        """Execute one statement.

        Damaged: the disk is full or the file locked. Refused: it is no database.
        """
        with self._errors():
            return self.connection.execute(statement, values)

    @contextmanager
    def whole(self, kind: str = "IMMEDIATE") -> Iterator[None]:
        """Changes that are made together or not at all."""
        self.do(f"BEGIN {kind}")
        try:
            yield
        except BaseException:
            self.do("ROLLBACK")
            raise
        self.do("COMMIT")

    @contextmanager
    def lease(self, lost: Callable[[], None], every: float = LEASE_SECONDS / 6) -> Iterator[None]:
        """Hold the file. Busy: another process that is alive holds it.

        lost: called when another process has taken over, because this one did not renew its lease
        for long. every: seconds between renewals.
        """
        now = self.clock()
        with self.whole():
            held = self.do("SELECT host, pid, started, renewed FROM lease").fetchone()
            if held is not None and living(dict(held), now):
                age = max(now - held["started"], 0)
                raise Busy(
                    f"process {held['pid']} on {held['host']} holds {self.path} since {age:.0f} s;"
                    " wait for it to end, or stop it"
                )
            self.do("REPLACE INTO lease VALUES (1, ?, ?, ?, ?, ?)", *self.owner.values(), now, now)
        over = threading.Event()
        thread = threading.Thread(
            target=self._renew, args=(over, lost, every), name="lease", daemon=True
        )
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self.do("DELETE FROM lease WHERE token = ?", self.owner["token"])

    def _renew(self, over: threading.Event, lost: Callable[[], None], every: float) -> None:
        """Renew the lease until `over` is set, or until another process has taken over."""
        connection = sqlite3.connect(self.path, timeout=LOCK_SECONDS, isolation_level=None)
        try:
            while not over.wait(every):
                try:
                    renewed = connection.execute(
                        "UPDATE lease SET renewed = ? WHERE token = ?",
                        (self.clock(), self.owner["token"]),
                    )
                except sqlite3.OperationalError:
                    continue  # a full disk or a long transaction: the next sign may come through
                if not renewed.rowcount:
                    lost()
                    return
        finally:
            connection.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn what SQLite raises into one sentence."""
        try:
            yield
        except sqlite3.OperationalError as error:
            raise Damaged(
                f"{self.path} cannot be read or written ({error}); free space or change its"
                " permissions, then run the command again"
            ) from error
        except sqlite3.DatabaseError as error:
            raise Refused(
                f"{self.path} is not a database of tierscale ({error}); name another file, or"
                " restore it from a copy"
            ) from error
