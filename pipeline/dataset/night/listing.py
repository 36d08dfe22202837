"""What a listing of an archive changes in its ledger."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tierscale.pipeline.dataset.night.ledger import Ledger
from tierscale.pipeline.dataset.night.ledger_schema import DOUBTFUL, FORGET_FAILURES, HELD
from tierscale.pipeline.dataset.scan import ListedSource


class Late(Exception):
    """The window closed before the content of a source was compared."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What a listing showed, in numbers of sources.

    undecided: what is done and may have changed, and is compared at the next listing: because the
    window closed, or because it may still be being written. unsettled: all that may still be being
    written.
    """

    new: int
    changed: int
    untouched: int
    gone: int
    undecided: int = 0
    unsettled: int = 0

    @property
    def all_gone(self) -> bool:
        """Whether sources are known, and nothing was listed."""
        listed = self.new + self.changed + self.untouched + self.undecided
        return self.gone > 0 and not listed


def record_listing(
    ledger: Ledger,
    listing: Iterable[ListedSource],
    sha256: Callable[[str], str | None],
    unsettled: Callable[[ListedSource], bool] = lambda listed: False,
) -> Changes:
    """Compare a listing with the rows, and make what is new or changed pending.

    Failures of what changed are forgotten. In doubt (same size and another time, or a time too
    close to that of the last listing) the checksum of the content decides, where one is known.
    sha256: of a source; where it raises Late, the doubt stays for the next listing. unsettled:
    whether a source may still be being written. Where it is new or changed it is held back, and
    what was made of it before stays as it is.
    """
    _store(ledger, listing, unsettled)
    changed, undecided = _compare(ledger, sha256)
    ledger.listing += 1
    stamp = (ledger.listing, ledger.clock())
    total = ledger.do("SELECT count(*) FROM listed").fetchone()[0]
    held = [row["source"] for row in ledger.do(HELD)]
    with ledger.whole():
        for source in undecided:
            ledger.do("UPDATE sources SET seen = ? WHERE source = ?", ledger.listing, source)
            ledger.do("DELETE FROM listed WHERE source = ?", source)
        for source in changed:
            ledger.do(
                f"UPDATE sources SET {FORGET_FAILURES}, sha256 = NULL, error = NULL"
                " WHERE source = ?",
                source,
            )
        ledger.do(
            "UPDATE sources SET bytes = l.bytes, mtime_ns = l.mtime_ns, etag = l.etag, seen ="
            " ?, noted = ? FROM listed l WHERE l.source = sources.source",
            *stamp,
        )
        new = ledger.do(
            "INSERT INTO sources (source, bytes, mtime_ns, etag, seen, noted) SELECT source,"
            " bytes, mtime_ns, etag, ?, ? FROM listed WHERE source NOT IN (SELECT source FROM"
            " sources)",
            *stamp,
        ).rowcount
        ledger.hold_back(held)
    gone = ledger.do("SELECT count(*) FROM sources WHERE seen < ?", ledger.listing).fetchone()[0]
    untouched = total - new - len(changed) - len(undecided)
    return Changes(new, len(changed), untouched, gone, len(undecided), len(held))


def _store(
    ledger: Ledger,
    listing: Iterable[ListedSource],
    unsettled: Callable[[ListedSource], bool],
) -> None:
    """Put a listing into a temporary table."""
    ledger.do(
        "CREATE TEMP TABLE IF NOT EXISTS listed (source TEXT PRIMARY KEY, bytes INTEGER,"
        " mtime_ns INTEGER, etag TEXT, unsettled INTEGER)"
    )
    # Deferred, it locks nothing that others need, however long the listing takes.
    with ledger.whole("DEFERRED"):
        ledger.do("DELETE FROM listed")
        for item in listing:
            ledger.do(
                "INSERT OR REPLACE INTO listed VALUES (?, ?, ?, ?, ?)",
                *(item.source, item.bytes, item.mtime_ns, item.etag, unsettled(item)),
            )


def _compare(ledger: Ledger, sha256: Callable[[str], str | None]) -> tuple[list[str], list[str]]:
    """Sources that were changed, and those that the next listing decides."""
    changed, undecided = [], []
    for row in ledger.do(DOUBTFUL).fetchall():
        if row["waits"]:
            undecided.append(row["source"])
            continue
        try:
            if not (row["doubt"] and sha256(row["source"]) == row["sha256"]):
                changed.append(row["source"])
        except Late:
            undecided.append(row["source"])
    return changed, undecided
