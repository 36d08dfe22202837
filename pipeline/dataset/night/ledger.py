"""The ledger of an archive: one row for each source, kept in one SQLite file from night to night.

A source is pending until it is enlarged, working while a nightly is at it, then done or failed.
Attempts that fail count once for each night, however often they are repeated; after NIGHTS of them
the source is parked with the reason, until it changes or a person asks for it.
"""

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tierscale.pipeline.dataset.night.ledger_schema import (
    COUNT_FAILURE,
    DIED,
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

__all__ = ["NIGHTS", "Busy", "Entry", "Ledger"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A source that is to be enlarged now.

    listed: how it was seen last. plan: digest of the plan of ours that an earlier attempt began at
    this output, or None.
    """

    source: str
    output: str
    listed: ListedSource
    plan: str | None


class Ledger(Database):
    """The ledger in the file at `path`, created where there is none, migrated where it is older.

    clock: seconds since the epoch. Refused: the file is no ledger, or of a later version.
    """

    def __init__(self, path: str, clock: Callable[[], float] = time.time) -> None:
        super().__init__(path, SCHEMA, MARK, clock)
        try:
            migrate(self)
            # Number of the last listing.
            self.listing: int = self.do("SELECT coalesce(max(seen), 0) FROM sources").fetchone()[0]
            self.do("CREATE TEMP TABLE held_back (source TEXT PRIMARY KEY) WITHOUT ROWID")
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

    def done_outputs(self) -> Iterator[tuple[str, str]]:
        """(source, output) of what is done and was listed last, as it was written down."""
        for row in self.do(
            "SELECT source, output FROM sources WHERE state = 'done' AND seen = ?", self.listing
        ):
            yield row["source"], row["output"]

    def pending_sources(self) -> Iterator[str]:
        """What is pending or failed earlier, and was listed last."""
        for row in self.do(
            "SELECT source FROM sources WHERE state IN ('pending', 'failed') AND seen = ?",
            self.listing,
        ).fetchall():
            yield row["source"]

    def requeue(self, sources: Iterable[str]) -> None:
        """Make sources pending again that are done."""
        with self.whole():
            for source in sources:
                self.do(
                    "UPDATE sources SET state = 'pending' WHERE source = ? AND state = 'done'",
                    source,
                )

    def hold_back(self, sources: Iterable[str]) -> None:
        """Claim none of these sources until the ledger is opened again."""
        for source in sources:
            self.do("INSERT OR IGNORE INTO held_back VALUES (?)", source)

    def doubles(self, key: Callable[[str], str]) -> dict[str, str]:
        """Sources that were listed last and share a key with another one, and that one.

        Of those that share it, one that is done has it, or else the first by name.
        """
        self.connection.create_function("shared_key", 1, key, deterministic=True)
        rows = self.do(
            "WITH keys AS (SELECT source, state, shared_key(source) AS name FROM sources WHERE seen"
            " = ?) SELECT source, name FROM keys WHERE name IN (SELECT name FROM keys GROUP BY name"
            " HAVING count(*) > 1) ORDER BY state != 'done', source",
            self.listing,
        ).fetchall()
        owners: dict[str, str] = {}
        for row in rows:
            owners.setdefault(row["name"], row["source"])
        return {
            row["source"]: owners[row["name"]]
            for row in rows
            if owners[row["name"]] != row["source"]
        }

    def oldest_outputs(self, share: float) -> list[tuple[str, str]]:
        """(source, output) of a share of what is done, written or read back longest ago."""
        count = self.do("SELECT count(*) FROM sources WHERE state = 'done'").fetchone()[0]
        rows = self.do(
            "SELECT source, output FROM sources WHERE state = 'done' ORDER BY coalesce(checked, 0),"
            " source LIMIT ?",
            math.ceil(share * count),
        )
        return [(row["source"], row["output"]) for row in rows]

    def record_read_back(self, source: str) -> None:
        """The output of a source was read back, and is as it should be."""
        self.do("UPDATE sources SET checked = ? WHERE source = ?", self.clock(), source)

    def has_work(self) -> bool:
        """Whether there is a source to claim."""
        row = self.do(
            "SELECT 1 FROM sources WHERE state = 'pending' AND seen = ? AND source NOT IN (SELECT"
            " source FROM held_back) LIMIT 1",
            self.listing,
        ).fetchone()
        return row is not None

    def listed_below(self, folder: str, outside: str, limit: int) -> list[str]:
        """Some sources, in no order, that were listed last and lie below a folder.

        outside: a source or a folder; it, and what lies below it, is left out.
        """
        below, apart = f"{folder.rstrip('/')}/", f"{outside.rstrip('/')}/"
        rows = self.do(
            "SELECT source FROM sources WHERE seen = ? AND source > ? AND source < ? AND source !="
            " ? AND NOT (source > ? AND source < ?) ORDER BY random() LIMIT ?",
            *(self.listing, below, _behind(below), outside, apart, _behind(apart), limit),
        )
        return [row["source"] for row in rows]

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
                "SELECT source, output, bytes, mtime_ns, etag, plan FROM sources"
                f" {where} WHERE state = 'pending' AND seen = ? AND source NOT IN (SELECT source"
                f" FROM held_back) AND error {order}, -priority, bytes, source LIMIT 1",
                *(self.listing, DIED),
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
        listed = ListedSource(*(row[name] for name in ("source", "bytes", "mtime_ns", "etag")))
        return Entry(listed.source, output, listed, plan)

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
            " width = ?, tiles = ?, cost = ?, cost_share = ?, seconds = ?, sha256 = ?, checked ="
            " ?, family = ?, notes = ?, loss_db = ?, loss_high = ?",
            *(result.plan, result.height, result.width, json.dumps(dict(result.tiles))),
            *(result.cost, result.cost_share, result.seconds, sha256, self.clock()),
            *(result.family, "\n".join(result.notes), *(result.loss or (None, None))),
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
            *(night, self.listing),
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
            *(night, self.listing),
        )
        for row in rows:
            yield {**dict(row), "tiles": json.loads(row["tiles"] or "{}")}


def _behind(prefix: str) -> str:
    """The first text that is larger than all that begin with `prefix`, which ends in a slash."""
    return f"{prefix[:-1]}0"
