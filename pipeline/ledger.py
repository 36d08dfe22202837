"""The ledger of an archive: one row for each source, kept in one SQLite file from night to night.

A source is pending until it is enlarged, working while a nightly is at it, then done or failed. One attempt that fails counts for its night,
however often it is repeated; after NIGHTS of them the source is parked with the reason, until it changes or a person asks for it.
"""

import json
import os
import socket
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.archive import Seen
from pipeline.errors import Damaged, Refused
from pipeline.receipts import LEASE_SECONDS, living

# Nights on which a source may fail before it is parked.
NIGHTS = 3
# Time stamps of files may be this coarse, in nanoseconds: a file changed so shortly before it was noted may have changed once more.
COARSE_NS = 2 * 10**9
# Marks a SQLite file as a ledger: "tier" in ASCII.
MARK = 0x74696572
STATES = ("pending", "working", "done", "failed", "parked")
SCHEMA = f"""
CREATE TABLE sources (
  source TEXT PRIMARY KEY, output TEXT, state TEXT NOT NULL DEFAULT 'pending' CHECK (state IN {STATES}), priority REAL NOT NULL DEFAULT 0,
  bytes INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, etag TEXT, sha256 TEXT, noted REAL NOT NULL, seen TEXT,
  plan TEXT, options TEXT, attempts INTEGER NOT NULL DEFAULT 0, counted TEXT, night TEXT, holder TEXT,
  height INTEGER, width INTEGER, tiles TEXT, cost REAL, cost_share REAL, seconds REAL, error TEXT);
CREATE INDEX waiting ON sources (attempts > 0, -priority, bytes, source) WHERE state = 'pending';
CREATE INDEX states ON sources (state, night);
CREATE TABLE lease (one INTEGER PRIMARY KEY CHECK (one = 1), host TEXT, pid INTEGER, token TEXT, started REAL, renewed REAL);
PRAGMA application_id = {MARK};
"""
# A night's failure: counted once for the night, and the third one parks.
COUNT = f"""attempts = attempts + (counted IS NOT night), counted = night,
  state = CASE WHEN attempts + (counted IS NOT night) >= {NIGHTS} THEN 'parked' ELSE ? END"""


class Busy(Exception):
    """Another nightly holds the ledger; the text says which."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A source that is to be enlarged now. plan: digest of the plan of ours that an earlier attempt began, or None."""

    source: str
    bytes: int
    plan: str | None


@dataclass(frozen=True, slots=True)
class Changes:
    """What a scan found: numbers of sources."""

    new: int
    changed: int
    untouched: int
    gone: int


class Ledger:
    """The ledger in the file at `path`, made where there is none. clock: seconds since the epoch, handed in so that tests can jump.

    One thread uses it; the lease is renewed by another one with a connection of its own.
    """

    def __init__(self, path: str, clock: Callable[[], float] = time.time) -> None:
        self.path, self.clock = path, clock
        self.owner = {"host": socket.gethostname(), "pid": os.getpid(), "token": uuid.uuid4().hex}
        if not Path(path).absolute().parent.is_dir():
            raise Refused(f"there is no folder for the ledger {path}; make it first")
        with _reading(path):
            self._connection = self._open()

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=30, isolation_level=None)
        connection.row_factory = sqlite3.Row
        # Readers see whole states while a nightly writes; what the last moments before a power failure lose is only done again.
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("BEGIN IMMEDIATE")
        mark = connection.execute("PRAGMA application_id").fetchone()[0]
        if mark == 0 and not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
            for statement in SCHEMA.split(";"):
                connection.execute(statement)
        connection.execute("COMMIT")
        if mark not in (0, MARK) or not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'sources'").fetchone():
            connection.close()
            raise Refused(f"{self.path} is a database of something else; name another file for the ledger")
        return connection

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _do(self, statement: str, *values: Any) -> sqlite3.Cursor:
        with _reading(self.path):
            return self._connection.execute(statement, values)

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """Changes that are made together or not at all."""
        self._do("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._do("ROLLBACK")
            raise
        self._do("COMMIT")

    @contextmanager
    def lease(self, lost: Callable[[], None], every: float = LEASE_SECONDS / 6) -> Iterator[None]:
        """Hold the ledger. Busy: another nightly does. lost: called when one has taken over, because this one gave no sign for long.

        What a dead nightly was at becomes pending again, and counts as an attempt that failed on its night.
        """
        now = self.clock()
        with self._whole():
            held = self._do("SELECT host, pid, started, renewed FROM lease").fetchone()
            if held is not None and living(dict(held), now):
                raise Busy(
                    f"process {held['pid']} on {held['host']} holds {self.path} since {max(now - held['started'], 0):.0f} s; "
                    "wait for it to end, or stop it"
                )
            self._do("REPLACE INTO lease VALUES (1, ?, ?, ?, ?, ?)", *self.owner.values(), now, now)
            self._do(
                f"UPDATE sources SET error = 'the nightly that was at work on it ended without a word; see its log', {COUNT} "
                "WHERE state = 'working'",
                "pending",
            )
        over = threading.Event()
        thread = threading.Thread(target=self._renew, args=(over, lost, every), name="ledger", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self._do("DELETE FROM lease WHERE token = ?", self.owner["token"])

    def _renew(self, over: threading.Event, lost: Callable[[], None], every: float) -> None:
        """Give signs of life until told that it is over, or until another nightly has taken over."""
        connection = sqlite3.connect(self.path, timeout=30, isolation_level=None)
        try:
            while not over.wait(every):
                try:
                    renewed = connection.execute("UPDATE lease SET renewed = ? WHERE token = ?", (self.clock(), self.owner["token"]))
                except sqlite3.OperationalError:
                    continue  # a full disk or a long transaction: the next sign may come through
                if not renewed.rowcount:
                    lost()
                    return
        finally:
            connection.close()

    def note(self, found: Iterable[Seen], night: str, sha256: Callable[[str], str | None]) -> Changes:
        """Compare a listing with the rows: what is new or changed becomes pending. night: its date.

        On doubt (same size, other time; or a time too close to that of the last listing) the content's checksum decides, if there is one
        of the last time. A change forgets failures.
        """
        now = self.clock()
        self._do("CREATE TEMP TABLE IF NOT EXISTS listed (source TEXT PRIMARY KEY, bytes INTEGER, mtime_ns INTEGER, etag TEXT)")
        self._do("DELETE FROM listed")
        with self._whole(), _reading(self.path):
            rows = ((seen.source, seen.bytes, seen.mtime_ns, seen.etag) for seen in found)
            self._connection.executemany("INSERT OR REPLACE INTO listed VALUES (?, ?, ?, ?)", rows)
        doubtful = self._do(
            "SELECT s.source, s.bytes = l.bytes AND s.sha256 IS NOT NULL AND s.state = 'done' AS doubt, s.sha256 "
            "FROM sources s JOIN listed l USING (source) WHERE s.bytes IS NOT l.bytes OR s.etag IS NOT l.etag OR s.mtime_ns IS NOT l.mtime_ns "
            "OR (s.state = 'done' AND s.sha256 IS NOT NULL AND l.mtime_ns > s.noted * 1e9 - ?)",
            COARSE_NS,
        ).fetchall()
        changed = [row["source"] for row in doubtful if not (row["doubt"] and sha256(row["source"]) == row["sha256"])]
        with self._whole():
            for source in changed:
                self._do(
                    "UPDATE sources SET state = 'pending', attempts = 0, counted = NULL, sha256 = NULL, error = NULL WHERE source = ?",
                    source,
                )
            self._do(
                "UPDATE sources SET bytes = l.bytes, mtime_ns = l.mtime_ns, etag = l.etag, seen = ?, noted = ? "
                "FROM listed l WHERE l.source = sources.source",
                night,
                now,
            )
            new = self._do(
                "INSERT INTO sources (source, bytes, mtime_ns, etag, seen, noted) SELECT source, bytes, mtime_ns, etag, ?, ? FROM listed "
                "WHERE source NOT IN (SELECT source FROM sources)",
                night,
                now,
            ).rowcount
        total = self._do("SELECT count(*) FROM listed").fetchone()[0]
        gone = self._do("SELECT count(*) FROM sources WHERE seen IS NOT ?", night).fetchone()[0]
        return Changes(new, len(changed), total - new - len(changed), gone)

    def open_night(self, night: str, retry_parked: bool = False, redo_unless: str | None = None) -> None:
        """What failed on earlier nights waits again. retry_parked: so does what is parked. redo_unless: so does what is done with other
        options than these."""
        with self._whole():
            self._do("UPDATE sources SET state = 'pending' WHERE state = 'failed' AND night IS NOT ?", night)
            if retry_parked:
                self._do("UPDATE sources SET state = 'pending', attempts = 0, counted = NULL WHERE state = 'parked'")
            if redo_unless is not None:
                self._do("UPDATE sources SET state = 'pending' WHERE state = 'done' AND options IS NOT ?", redo_unless)

    def take(self, night: str, options: str, output_of: Callable[[str], str]) -> Entry | None:
        """The next source to enlarge, now marked as being worked on; None: nothing waits.

        What failed before goes last; then the highest priority first, and the smallest.
        """
        with self._whole():
            row = self._do(
                "SELECT source, bytes, plan FROM sources WHERE state = 'pending' AND seen = ? "
                "ORDER BY attempts > 0, -priority, bytes, source LIMIT 1",
                night,
            ).fetchone()
            if row is None:
                return None
            self._do(
                "UPDATE sources SET state = 'working', night = ?, options = ?, output = ?, holder = ? WHERE source = ?",
                night,
                options,
                output_of(row["source"]),
                self.owner["token"],
                row["source"],
            )
        return Entry(*row)

    def _mine(self, source: str, change: str, *values: Any) -> None:
        """Change a row that this nightly is at work on; one that another nightly has taken over is left to it."""
        self._do(f"UPDATE sources SET {change} WHERE source = ? AND state = 'working' AND holder = ?", *values, source, self.owner["token"])

    def planned(self, source: str, plan: str) -> None:
        """Note the plan by which a source is being enlarged: what lies under the name of its output is ours from now on."""
        self._mine(source, "plan = ?", plan)

    def done(self, source: str, summary: Mapping[str, Any], sha256: str | None) -> None:
        """A source is enlarged. summary: as of pipeline.run. sha256: of its content, for the next doubt."""
        _, height, width = summary["shape"]
        told = (summary["plan"], height, width, json.dumps(summary["tiles"]), summary["cost"], summary["cost_share"])
        self._mine(
            source,
            "state = 'done', attempts = 0, counted = NULL, error = NULL, plan = ?, height = ?, width = ?, tiles = ?, cost = ?, "
            "cost_share = ?, seconds = ?, sha256 = ?",
            *told,
            summary["seconds"]["total"],
            sha256,
        )

    def failed(self, source: str, error: str) -> None:
        """An attempt failed through the source's fault; it is not tried again this night."""
        self._mine(source, f"error = ?, {COUNT}", error, "failed")

    def left(self, source: str, state: str = "pending", error: str | None = None) -> None:
        """An attempt ended through no fault of the source, and does not count. state "failed": not to be tried again this night."""
        self._mine(source, "state = ?, error = coalesce(?, error)", state, error)

    def counts(self, night: str) -> dict[str, int]:
        """Sources in each state; "left": pending ones that are there; "worked": done this night; "wrong": failed this night."""
        found = dict.fromkeys(STATES, 0) | {row[0]: row[1] for row in self._do("SELECT state, count(*) FROM sources GROUP BY state")}
        extra = self._do(
            "SELECT coalesce(sum(state = 'pending' AND seen = ?1), 0) AS left, coalesce(sum(state = 'done' AND night = ?1), 0) AS worked, "
            "coalesce(sum(state IN ('failed', 'parked') AND night = ?1), 0) AS wrong FROM sources",
            night,
        ).fetchone()
        return found | dict(extra)

    def rows(self, night: str) -> Iterator[dict[str, Any]]:
        """Rows that a person wants to read of this night: what was worked on, and what is not done."""
        for row in self._do("SELECT * FROM sources WHERE night = ? OR state != 'done' ORDER BY source", night):
            yield {**dict(row), "tiles": json.loads(row["tiles"] or "{}")}


@contextmanager
def _reading(path: str) -> Iterator[None]:
    """Turn what SQLite raises into one sentence."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise Damaged(f"the ledger {path} cannot be read or written ({error}); free space or change its rights, then run again") from error
    except sqlite3.DatabaseError as error:
        raise Refused(f"{path} cannot be used as a ledger ({error}); name another file, or put a copy of the ledger there") from error
