"""The ledger of an archive: one row for each source, kept in one SQLite file from night to night.

A source is pending until it is enlarged, working while a nightly is at it, then done or failed.
Attempts that fail count once for each night, however often they are repeated; after NIGHTS of them
the source is parked with the reason, until it changes or a person asks for it.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tierscale.pipeline.dataset.ledger_schema import (
    COUNT_FAILURE,
    DIED,
    DOUBTFUL,
    FORGET_FAILURES,
    MARK,
    NIGHTS,
    OPTIONS_DONE,
    REDO,
    SCHEMA,
    STATES,
    migrate,
)
from tierscale.pipeline.dataset.results import ImageResult
from tierscale.pipeline.dataset.scan import ListedSource
from tierscale.pipeline.storage.sqlite import Busy, Database

__all__ = ["NIGHTS", "Busy", "Changes", "Entry", "Late", "Ledger"]


class Late(Exception):
    """The window closed before the content of a source was compared."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A source that is to be enlarged now.

    plan: digest of the plan of ours that an earlier attempt began at this output, or None.
    """

    source: str
    output: str
    bytes: int
    plan: str | None


@dataclass(frozen=True, slots=True)
class Changes:
    """What a listing showed, in numbers of sources.

    undecided: the window closed before their content was compared.
    """

    new: int
    changed: int
    untouched: int
    gone: int
    undecided: int = 0


class Ledger(Database):
    """The ledger in the file at `path`, created where there is none, migrated where it is older.

    clock: seconds since the epoch. Refused: the file is no ledger, or of a later version.
    """

    def __init__(self, path: str, clock: Callable[[], float] = time.time) -> None:
        super().__init__(path, SCHEMA, MARK, clock)
        try:
            migrate(self)
            self._listing = self.do("SELECT coalesce(max(seen), 0) FROM sources").fetchone()[0]
        except BaseException:
            self.close()
            raise

    @contextmanager
    def lease(self, lost: Callable[[], None], every: float = 20.0) -> Iterator[None]:
        """Hold the ledger, as Database.lease does.

        What a nightly was at as it died is pending again, with one more failed attempt.
        """
        with super().lease(lost, every):
            self.do(
                f"UPDATE sources SET error = ?, {COUNT_FAILURE} WHERE state = 'working'",
                *(DIED, "pending"),
            )
            yield

    def record_listing(
        self, listing: Iterable[ListedSource], sha256: Callable[[str], str | None]
    ) -> Changes:
        """Compare a listing with the rows, and make what is new or changed pending.

        Failures of what changed are forgotten. In doubt (same size and another time, or a time too
        close to that of the last listing) the checksum of the content decides, where one is known.
        sha256: of a source; where it raises Late, the doubt stays for the next listing.
        """
        self._store_listing(listing)
        changed, undecided = self._compare_contents(sha256)
        self._listing += 1
        stamp = (self._listing, self.clock())
        total = self.do("SELECT count(*) FROM listed").fetchone()[0]
        with self.whole():
            for source in undecided:
                self.do("UPDATE sources SET seen = ? WHERE source = ?", self._listing, source)
                self.do("DELETE FROM listed WHERE source = ?", source)
            for source in changed:
                self.do(
                    f"UPDATE sources SET {FORGET_FAILURES}, sha256 = NULL, error = NULL"
                    " WHERE source = ?",
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
        untouched = total - new - len(changed) - len(undecided)
        return Changes(new, len(changed), untouched, gone, len(undecided))

    def _store_listing(self, listing: Iterable[ListedSource]) -> None:
        """Put a listing into a temporary table."""
        self.do(
            "CREATE TEMP TABLE IF NOT EXISTS listed (source TEXT PRIMARY KEY, bytes INTEGER,"
            " mtime_ns INTEGER, etag TEXT)"
        )
        # Deferred, it locks nothing that others need, however long the listing takes.
        with self.whole("DEFERRED"):
            self.do("DELETE FROM listed")
            for item in listing:
                self.do(
                    "INSERT OR REPLACE INTO listed VALUES (?, ?, ?, ?)",
                    *(item.source, item.bytes, item.mtime_ns, item.etag),
                )

    def _compare_contents(self, sha256: Callable[[str], str | None]) -> tuple[list[str], list[str]]:
        """Sources that were changed, and those whose checksum was not known in time."""
        changed, undecided = [], []
        for row in self.do(DOUBTFUL).fetchall():
            try:
                if not (row["doubt"] and sha256(row["source"]) == row["sha256"]):
                    changed.append(row["source"])
            except Late:
                undecided.append(row["source"])
        return changed, undecided

    def begin_night(
        self,
        night: str,
        retry_parked: bool = False,
        redo: Callable[[str | None], bool] = lambda options: False,
    ) -> None:
        """Make what failed on earlier nights pending again.

        retry_parked: so does what is parked. redo: whether so does what was done with such options.
        """
        with self.whole():
            self.do(
                "UPDATE sources SET state = 'pending' WHERE state = 'failed' AND night IS NOT ?",
                night,
            )
            if retry_parked:
                self.do(f"UPDATE sources SET {FORGET_FAILURES} WHERE state = 'parked'")
            for (options,) in self.do(OPTIONS_DONE).fetchall():
                if redo(options):
                    self.do(REDO, options)

    def requeue_missing(
        self, output_of: Callable[[str], str], missing: Callable[[Iterable[str]], Iterable[str]]
    ) -> None:
        """Make what is done pending again where its output belongs elsewhere now, or is missing.

        output_of: the output of a source. missing: those of some outputs that are not there.
        """
        done = self.do(
            "SELECT source, output FROM sources WHERE state = 'done' AND seen = ?", self._listing
        ).fetchall()
        sources = {output_of(row["source"]): row["source"] for row in done}
        moved = {row["source"] for row in done if sources.get(row["output"]) != row["source"]}
        lost = {sources[output] for output in missing(sources.keys())}
        with self.whole():
            for source in moved | lost:
                self.do("UPDATE sources SET state = 'pending' WHERE source = ?", source)

    def claim(
        self, night: str, options: str, output_of: Callable[[str], str], suspects: bool = False
    ) -> Entry | None:
        """The next source to enlarge, marked as worked on from now; None: nothing is pending.

        What failed before goes last; otherwise the highest priority first, and then the smallest.
        suspects: claim one of those that a nightly was at as it died, and none of the others; it
        should be at work alone, so that if it is the killer no other is blamed.
        """
        # Suspects have no index of their own: there are no more of them than images were under way.
        # For the others SQLite takes the wrong one by itself, and would sort all that is pending
        # for each that it gives.
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

    def _update_claimed(self, source: str, change: str, *values: Any) -> None:
        """Change a row that this nightly claimed; one that another claimed since is left to it."""
        self.do(
            f"UPDATE sources SET {change} WHERE source = ? AND state = 'working' AND holder = ?",
            *(*values, source, self.owner["token"]),
        )

    def record_plan(self, source: str, plan: str) -> None:
        """Record the digest of the plan by which a source is being enlarged.

        From now on, what lies under the name of its output is known as ours.
        """
        self._update_claimed(source, "plan = ?", plan)

    def record_done(self, source: str, result: ImageResult, sha256: str | None) -> None:
        """A source is enlarged. sha256: of its content, to compare with when it is in doubt."""
        self._update_claimed(
            source,
            "state = 'done', attempts = 0, counted = NULL, error = NULL, plan = ?, height = ?,"
            " width = ?, tiles = ?, cost = ?, cost_share = ?, seconds = ?, sha256 = ?",
            *(result.plan, result.height, result.width, json.dumps(dict(result.tiles))),
            *(result.cost, result.cost_share, result.seconds, sha256),
        )

    def record_failure(self, source: str, error: str) -> None:
        """An attempt failed through the source's fault; it is not tried again this night."""
        self._update_claimed(source, f"error = ?, {COUNT_FAILURE}", error, "failed")

    def release(self, source: str, state: str = "pending", error: str | None = None) -> None:
        """An attempt ended through no fault of the source, and does not count.

        state: "failed" if it is not to be tried again this night.
        """
        self._update_claimed(source, "state = ?, error = coalesce(?, error)", state, error)

    def counts(self, night: str) -> dict[str, int]:
        """Numbers of sources in each state, and three numbers of a night.

        "left": pending ones that are there; "worked": done this night; "wrong": failed this night.
        """
        states = dict.fromkeys(STATES, 0) | {
            row[0]: row[1] for row in self.do("SELECT state, count(*) FROM sources GROUP BY state")
        }
        of_night = self.do(
            "SELECT coalesce(sum(state = 'pending' AND seen = ?2), 0) AS left, coalesce(sum(state ="
            " 'done' AND night = ?1), 0) AS worked, coalesce(sum(state IN ('failed', 'parked') AND"
            " night = ?1), 0) AS wrong FROM sources",
            *(night, self._listing),
        ).fetchone()
        return states | dict(of_night)

    def first_failure(self, night: str) -> tuple[str, str] | None:
        """The first source by name that failed this night, and why; None: none did."""
        row = self.do(
            "SELECT source, error FROM sources WHERE state IN ('failed', 'parked') AND night = ?"
            " ORDER BY source LIMIT 1",
            night,
        ).fetchone()
        return None if row is None else (row["source"], row["error"])

    def report_rows(self, night: str) -> Iterator[dict[str, Any]]:
        """Rows by name of what was worked on this night, is pending, failed or is parked."""
        rows = self.do(
            "SELECT * FROM sources WHERE night = ? OR state IN ('failed', 'parked') OR (state !="
            " 'done' AND seen = ?) ORDER BY source",
            *(night, self._listing),
        )
        for row in rows:
            yield {**dict(row), "tiles": json.loads(row["tiles"] or "{}")}
