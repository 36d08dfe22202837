"""The ledger of an archive: one row for each source, kept in one SQLite file from night to night.

A source is pending until it is enlarged, working while a nightly is at it, then done or failed.
Attempts that fail count once for each night, however often they are repeated; after NIGHTS of them
the source is parked with the reason, until it changes or a person asks for it.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tierscale.pipeline.dataset.scan import ListedSource
from tierscale.pipeline.storage.sqlite import Busy, Database

__all__ = ["NIGHTS", "Busy", "Changes", "Entry", "Late", "Ledger"]

# Nights on which a source may fail before it is parked.
NIGHTS = 3
# Time stamps of files may be this coarse, in nanoseconds: a file changed so shortly before it was
# noted may have changed once more.
COARSE_NS = 2 * 10**9
# Marks a SQLite file as a ledger: "tier" in ASCII.
MARK = 0x74696572
STATES = ("pending", "working", "done", "failed", "parked")
# seen: number of the listing that showed the source last. noted: when that was, seconds since the
# epoch. counted: night of the last failure that counts. night: when it was worked on last. holder:
# token of the nightly that did.
SCHEMA = f"""
CREATE TABLE sources (
  source TEXT PRIMARY KEY, output TEXT, state TEXT NOT NULL DEFAULT 'pending' CHECK (state IN {STATES}), priority REAL NOT NULL DEFAULT 0,
  bytes INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, etag TEXT, sha256 TEXT, seen INTEGER NOT NULL, noted REAL NOT NULL,
  plan TEXT, options TEXT, attempts INTEGER NOT NULL DEFAULT 0, counted TEXT, night TEXT, holder TEXT,
  height INTEGER, width INTEGER, tiles TEXT, cost REAL, cost_share REAL, seconds REAL, error TEXT);
CREATE INDEX waiting ON sources (attempts > 0, -priority, bytes, source) WHERE state = 'pending';
CREATE INDEX states ON sources (state, night)"""
# A failure counts once for its night, and that of the third night parks; the parameter is the state
# otherwise.
COUNT = f"""attempts = attempts + (counted IS NOT night), counted = night,
  state = CASE WHEN attempts + (counted IS NOT night) >= {NIGHTS} THEN 'parked' ELSE ? END"""
FORGET = "state = 'pending', attempts = 0, counted = NULL"
DIED = (
    "the nightly that was at work on it ended without a word; see its log, or enlarge the image by"
    " hand"
)


class Late(Exception):
    """The window closed before a content was looked at."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A source that is to be enlarged now. plan: digest of the plan of ours that an earlier attempt
    began at this output, or None.
    """

    source: str
    output: str
    bytes: int
    plan: str | None


@dataclass(frozen=True, slots=True)
class Changes:
    """What a listing showed: numbers of sources. undecided: the window closed before a look at
    their content.
    """

    new: int
    changed: int
    untouched: int
    gone: int
    undecided: int = 0


class Ledger(Database):
    """The ledger in the file at `path`, made where there is none. clock: seconds since the
    epoch.
    """

    def __init__(self, path: str, clock: Callable[[], float] = time.time) -> None:
        super().__init__(path, SCHEMA, MARK, clock)
        self._listing = self.do("SELECT coalesce(max(seen), 0) FROM sources").fetchone()[0]

    @contextmanager
    def lease(self, lost: Callable[[], None], every: float = 20.0) -> Iterator[None]:
        """Hold the ledger, as Database.lease. What a dead nightly was at is pending again, as an
        attempt of its night that failed.
        """
        with super().lease(lost, every):
            self.do(
                f"UPDATE sources SET error = ?, {COUNT} WHERE state = 'working'", DIED, "pending"
            )
            yield

    def note(self, found: Iterable[ListedSource], sha256: Callable[[str], str | None]) -> Changes:
        """Compare a listing with the rows: what is new or changed becomes pending, and its failures
        are forgotten.

        On doubt (same size and another time, or a time too close to that of the last listing) the
        checksum of the content decides, where there is one of last time. sha256: of a source; where
        it raises Late, the doubt stays for the next listing.
        """
        self.do(
            "CREATE TEMP TABLE IF NOT EXISTS listed (source TEXT PRIMARY KEY, bytes INTEGER,"
            " mtime_ns INTEGER, etag TEXT)"
        )
        with self.whole(
            "DEFERRED"
        ):  # locks nothing that others need, however long the listing takes
            self.do("DELETE FROM listed")
            for seen in found:
                self.do(
                    "INSERT OR REPLACE INTO listed VALUES (?, ?, ?, ?)",
                    seen.source,
                    seen.bytes,
                    seen.mtime_ns,
                    seen.etag,
                )
        changed, undecided = self._decided(sha256)
        self._listing += 1
        stamp = (self._listing, self.clock())
        total = self.do("SELECT count(*) FROM listed").fetchone()[0]
        with self.whole():
            for source in undecided:
                self.do("UPDATE sources SET seen = ? WHERE source = ?", self._listing, source)
                self.do("DELETE FROM listed WHERE source = ?", source)
            for source in changed:
                self.do(
                    "UPDATE sources SET state = 'pending', attempts = 0, counted = NULL, sha256 ="
                    " NULL, error = NULL WHERE source = ?",
                    source,
                )
            self.do(
                "UPDATE sources SET bytes = l.bytes, mtime_ns = l.mtime_ns, etag = l.etag, seen ="
                " ?, noted = ? FROM listed l WHERE l.source = sources.source",
                *stamp,
            )
            new = self.do(
                "INSERT INTO sources (source, bytes, mtime_ns, etag, seen, noted) SELECT source,"
                " bytes, mtime_ns, etag, ?, ? FROM listed WHERE source NOT IN (SELECT source FROM"
                " sources)",
                *stamp,
            ).rowcount
        gone = self.do("SELECT count(*) FROM sources WHERE seen < ?", self._listing).fetchone()[0]
        return Changes(
            new, len(changed), total - new - len(changed) - len(undecided), gone, len(undecided)
        )

    def _decided(self, sha256: Callable[[str], str | None]) -> tuple[list[str], list[str]]:
        """Sources that were changed, and those of which the checksum came too late to tell."""
        changed, undecided = [], []
        for row in self._doubtful():
            try:
                if not (row["doubt"] and sha256(row["source"]) == row["sha256"]):
                    changed.append(row["source"])
            except Late:
                undecided.append(row["source"])
        return changed, undecided

    def _doubtful(self) -> list[Any]:
        """Rows that may differ from what was listed: source, sha256 and whether that decides."""
        return self.do(
            "SELECT s.source, s.sha256, s.state = 'done' AND s.sha256 IS NOT NULL AND s.bytes ="
            " l.bytes AND s.etag IS l.etag AS doubt FROM sources s JOIN listed l USING (source)"
            " WHERE s.bytes != l.bytes OR s.etag IS NOT l.etag OR s.mtime_ns != l.mtime_ns OR"
            " (s.state = 'done' AND s.sha256 IS NOT NULL AND l.mtime_ns > s.noted * 1e9 - ?)",
            COARSE_NS,
        ).fetchall()

    def open_night(
        self, night: str, retry_parked: bool = False, redo_unless: str | None = None
    ) -> None:
        """What failed on earlier nights waits again. retry_parked: so does what is parked.
        redo_unless: so does what was done with other options than these.
        """
        with self.whole():
            self.do(
                "UPDATE sources SET state = 'pending' WHERE state = 'failed' AND night IS NOT ?",
                night,
            )
            if retry_parked:
                self.do(f"UPDATE sources SET {FORGET} WHERE state = 'parked'")
            if redo_unless is not None:
                self.do(
                    "UPDATE sources SET state = 'pending' WHERE state = 'done' AND options IS"
                    " NOT ?",
                    redo_unless,
                )

    def await_again(
        self, output_of: Callable[[str], str], missing: Callable[[Iterable[str]], Iterable[str]]
    ) -> None:
        """What is done waits again where its output belongs elsewhere now, or is not there any
        more.

        output_of: the place of a source's output. missing: those of some outputs that are
        not there.
        """
        done = self.do(
            "SELECT source, output FROM sources WHERE state = 'done' AND seen = ?", self._listing
        ).fetchall()
        places = {output_of(row["source"]): row["source"] for row in done}
        moved = [row["source"] for row in done if places.get(row["output"]) != row["source"]]
        lacking = [places[output] for output in missing(places.keys())]
        with self.whole():
            for source in {*moved, *lacking}:
                self.do("UPDATE sources SET state = 'pending' WHERE source = ?", source)

    def take(
        self, night: str, options: str, output_of: Callable[[str], str], suspects: bool = False
    ) -> Entry | None:
        """The next source to enlarge, marked as worked on from now; None: nothing waits.

        What failed before goes last; otherwise the highest priority first, and then the smallest.
        suspects: take one of those that a nightly was at as it died, and none of the others; it
        should be at work alone, so that if it is the killer no other is blamed.
        """
        # Suspects have no index of their own: there are no more of them than images were in flight.
        # For the others SQLite takes the wrong one by itself, and would sort all that waits for
        # each that it gives.
        where, order = (
            ("", "IS ? ORDER BY attempts")
            if suspects
            else ("INDEXED BY waiting", "IS NOT ? ORDER BY attempts > 0")
        )
        with self.whole():
            row = self.do(
                f"SELECT source, output, bytes, plan FROM sources {where} WHERE state = 'pending'"
                f" AND seen = ? AND error {order}, -priority, bytes, source LIMIT 1",
                *(self._listing, DIED),
            ).fetchone()
            if row is None:
                return None
            output = output_of(row["source"])
            # What lies at another place than last time is not known as ours.
            plan = row["plan"] if row["output"] == output else None
            self.do(
                "UPDATE sources SET state = 'working', night = ?, options = ?, output = ?, plan ="
                " ?, holder = ? WHERE source = ?",
                *(night, options, output, plan, self.owner["token"], row["source"]),
            )
        return Entry(row["source"], output, row["bytes"], plan)

    def _mine(self, source: str, change: str, *values: Any) -> None:
        """Change a row that this nightly is at work on; one that another nightly has taken over is
        left to it.
        """
        self.do(
            f"UPDATE sources SET {change} WHERE source = ? AND state = 'working' AND holder = ?",
            *values,
            source,
            self.owner["token"],
        )

    def planned(self, source: str, plan: str) -> None:
        """Note the plan by which a source is being enlarged: from now on, what lies under the name
        of its output is ours.
        """
        self._mine(source, "plan = ?", plan)

    def done(self, source: str, summary: Mapping[str, Any], sha256: str | None) -> None:
        """A source is enlarged. summary: as of pipeline.run. sha256: of its content, for the next
        doubt.
        """
        _, height, width = summary["shape"]
        self._mine(
            source,
            "state = 'done', attempts = 0, counted = NULL, error = NULL, plan = ?, height = ?,"
            " width = ?, tiles = ?, cost = ?, cost_share = ?, seconds = ?, sha256 = ?",
            *(
                summary["plan"],
                height,
                width,
                json.dumps(summary["tiles"]),
                summary["cost"],
                summary["cost_share"],
            ),
            *(summary["seconds"]["total"], sha256),
        )

    def failed(self, source: str, error: str) -> None:
        """An attempt failed through the source's fault; it is not tried again this night."""
        self._mine(source, f"error = ?, {COUNT}", error, "failed")

    def left(self, source: str, state: str = "pending", error: str | None = None) -> None:
        """An attempt ended through no fault of the source, and does not count. state "failed": it
        is not tried again this night.
        """
        self._mine(source, "state = ?, error = coalesce(?, error)", state, error)

    def counts(self, night: str) -> dict[str, int]:
        """Sources in each state; "left": pending ones that are there; "worked": done this night;
        "wrong": failed this night.
        """
        found = dict.fromkeys(STATES, 0) | {
            row[0]: row[1] for row in self.do("SELECT state, count(*) FROM sources GROUP BY state")
        }
        extra = self.do(
            "SELECT coalesce(sum(state = 'pending' AND seen = ?2), 0) AS left, coalesce(sum(state ="
            " 'done' AND night = ?1), 0) AS worked, coalesce(sum(state IN ('failed', 'parked') AND"
            " night = ?1), 0) AS wrong FROM sources",
            *(night, self._listing),
        ).fetchone()
        return found | dict(extra)

    def first_failed(self, night: str) -> tuple[str, str]:
        """The first source by name that failed this night, and why; there must be one."""
        row = self.do(
            "SELECT source, error FROM sources WHERE state IN ('failed', 'parked') AND night = ?"
            " ORDER BY source LIMIT 1",
            night,
        )
        source, error = row.fetchone()
        return source, error

    def rows(self, night: str) -> Iterator[dict[str, Any]]:
        """Rows that a person wants to read of this night, by name: what was worked on, what waits,
        failed or is parked.
        """
        found = self.do(
            "SELECT * FROM sources WHERE night = ? OR state IN ('failed', 'parked') OR (state !="
            " 'done' AND seen = ?) ORDER BY source",
            *(night, self._listing),
        )
        for row in found:
            yield {**dict(row), "tiles": json.loads(row["tiles"] or "{}")}
