"""The tables of a ledger, how those of an earlier version become them, and SQL that they share."""

from tierscale.pipeline.errors import Refused
from tierscale.pipeline.storage.sqlite import Database

# Marks a SQLite file as a ledger: "tier" in ASCII.
MARK = 0x74696572
STATES = ("pending", "working", "done", "failed", "parked")
# Statements by the version that they start from: MIGRATIONS[n] leads from version n to n + 1. The
# ledgers of tierscale 0.1 have version 0, and the tables of version 1.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (),
    ("ALTER TABLE sources ADD COLUMN checked REAL",),
    tuple(
        f"ALTER TABLE sources ADD COLUMN {column}"
        for column in ("family TEXT", "notes TEXT", "loss_db REAL", "loss_high REAL")
    ),
)
# Kept in the file as SQLite's user_version.
VERSION = len(MIGRATIONS)
# seen: number of the listing that showed the source last. noted: when that was, seconds since the
# epoch. counted: night of the last failure that counts. night: when it was worked on last. holder:
# token of the nightly that did. checked: when its output was written or read back last, seconds
# since the epoch. notes: sentences, a line each. loss_db, loss_high: dB below the full tier
# everywhere, as expected and at most.
SCHEMA = f"""
CREATE TABLE sources (
  source TEXT PRIMARY KEY, output TEXT,
  state TEXT NOT NULL DEFAULT 'pending' CHECK (state IN {STATES}),
  priority REAL NOT NULL DEFAULT 0,
  bytes INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, etag TEXT, sha256 TEXT,
  seen INTEGER NOT NULL, noted REAL NOT NULL, plan TEXT, options TEXT,
  attempts INTEGER NOT NULL DEFAULT 0, counted TEXT, night TEXT, holder TEXT,
  height INTEGER, width INTEGER, tiles TEXT, cost REAL, cost_share REAL, seconds REAL, error TEXT,
  checked REAL, family TEXT, notes TEXT, loss_db REAL, loss_high REAL);
CREATE INDEX waiting ON sources (attempts > 0, -priority, bytes, source) WHERE state = 'pending';
CREATE INDEX states ON sources (state, night);
PRAGMA user_version = {VERSION}"""

# Nights on which a source may fail before it is parked.
NIGHTS = 3
# Time stamps of files may be this coarse, in nanoseconds: a file changed so shortly before it was
# listed may have changed once more.
COARSE_NS = 2 * 10**9
# A failure counts once for its night, and that of the third night parks; the parameter is the state
# otherwise.
COUNT_FAILURE = f"""attempts = attempts + (counted IS NOT night), counted = night,
  state = CASE WHEN attempts + (counted IS NOT night) >= {NIGHTS} THEN 'parked' ELSE ? END"""
OPTIONS_DONE = "SELECT DISTINCT options FROM sources WHERE state = 'done'"
REDO = "UPDATE sources SET state = 'pending' WHERE state = 'done' AND options IS ?"
FORGET_FAILURES = "state = 'pending', attempts = 0, counted = NULL"
DIED = (
    "the nightly that was at work on it ended without a word; see its log, or enlarge the image by"
    " hand"
)


# Whether a row s may differ from what was listed of it as l.
_DIFFERS = f"""(s.bytes != l.bytes OR s.etag IS NOT l.etag OR s.mtime_ns != l.mtime_ns
  OR (s.state = 'done' AND s.sha256 IS NOT NULL AND l.mtime_ns > s.noted * 1e9 - {COARSE_NS}))"""
# Rows that may differ. doubt: the checksum decides whether they do. waits: what is done stays so
# while its source may still be being written.
DOUBTFUL = f"""SELECT s.source, s.sha256, s.state = 'done' AND s.sha256 IS NOT NULL
  AND s.bytes = l.bytes AND s.etag IS l.etag AS doubt, s.state = 'done' AND l.unsettled AS waits
  FROM sources s JOIN listed l USING (source) WHERE {_DIFFERS}"""
# What may still be being written and is new or changed, or waits already.
HELD = f"""SELECT l.source FROM listed l LEFT JOIN sources s USING (source) WHERE l.unsettled
  AND (s.source IS NULL OR s.state IN ('pending', 'failed') OR {_DIFFERS})"""


def migrate(ledger: Database) -> None:
    """Bring the tables of an opened ledger to VERSION, all steps or none.

    Refused: the ledger has a later version than this program knows.
    """
    with ledger.whole():
        version = ledger.do("PRAGMA user_version").fetchone()[0]
        if version > VERSION:
            raise Refused(
                f"the ledger {ledger.path} was written by a later version of tierscale (its schema"
                f" is {version}, and {VERSION} is the last one known here); install that version,"
                " or name another --ledger"
            )
        for statement in (step for steps in MIGRATIONS[version:] for step in steps):
            ledger.do(statement)
        ledger.do(f"PRAGMA user_version = {VERSION}")
