"""The tables of a ledger, how those of an earlier version become them, and SQL that they share.

Also options as a ledger keeps them: text that stays the same from version to version.
"""

import json

from tierscale.pipeline.errors import Refused
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.plan.policies import OLD_NAMES, parameter_of
from tierscale.pipeline.storage.sqlite import Database

# Marks a SQLite file as a ledger: "tier" in ASCII.
MARK = 0x74696572
STATES = ("pending", "working", "done", "failed", "parked")
# Statements by the version that they start from: MIGRATIONS[n] leads from version n to n + 1. The
# ledgers of tierscale 0.1 have version 0, and the tables of version 1.
MIGRATIONS: tuple[tuple[str, ...], ...] = ((),)
# Kept in the file as SQLite's user_version.
VERSION = len(MIGRATIONS)
# seen: number of the listing that showed the source last. noted: when that was, seconds since the
# epoch. counted: night of the last failure that counts. night: when it was worked on last. holder:
# token of the nightly that did.
SCHEMA = f"""
CREATE TABLE sources (
  source TEXT PRIMARY KEY, output TEXT,
  state TEXT NOT NULL DEFAULT 'pending' CHECK (state IN {STATES}),
  priority REAL NOT NULL DEFAULT 0,
  bytes INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, etag TEXT, sha256 TEXT,
  seen INTEGER NOT NULL, noted REAL NOT NULL, plan TEXT, options TEXT,
  attempts INTEGER NOT NULL DEFAULT 0, counted TEXT, night TEXT, holder TEXT,
  height INTEGER, width INTEGER, tiles TEXT, cost REAL, cost_share REAL, seconds REAL, error TEXT);
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


# Rows that may differ from what was listed; `doubt`: the checksum decides whether they do.
DOUBTFUL = f"""SELECT s.source, s.sha256, s.state = 'done' AND s.sha256 IS NOT NULL
  AND s.bytes = l.bytes AND s.etag IS l.etag AS doubt FROM sources s JOIN listed l USING (source)
  WHERE s.bytes != l.bytes OR s.etag IS NOT l.etag OR s.mtime_ns != l.mtime_ns
  OR (s.state = 'done' AND s.sha256 IS NOT NULL AND l.mtime_ns > s.noted * 1e9 - {COARSE_NS})"""
# Policies whose number version 0.1 wrote down, or None, whichever policy was chosen -> its name.
FIRST_NUMBERS = {
    "budget": "budget",
    "threshold": "threshold",
    "max-loss": "lose",
    "deadline": "deadline",
}


def ledger_text(options: Options) -> str:
    """Options as text that stays the same from version to version: names of 0.1 are kept.

    A ledger of an earlier version then finds its images done with the same options.
    """
    policy = options.policy
    old_names = {new: old for old, new in OLD_NAMES.items()}
    numbers: dict[str, float | None] = dict.fromkeys(FIRST_NUMBERS.values())
    number = parameter_of(policy)
    if number is not None:
        numbers[FIRST_NUMBERS.get(policy.name, policy.name)] = number
    wanted = {
        **numbers,
        "scale": str(options.scale),
        "tiers": options.tiers,
        "policy": old_names.get(policy.name, policy.name),
        "pooled": False,
        "tile": options.tile,
        "blend": options.blend,
        "device": options.device,
        "value_range": options.value_range,
        "region": options.region,
        "series": options.series,
        "level": options.level,
        "z": options.z,
        "t": options.t,
        "nodata": options.nodata,
        "exact_statistics": options.exact_statistics,
        "scout": options.scout,
    }
    return json.dumps(wanted, sort_keys=True, default=str)


def asks_otherwise(text: str | None, options: Options) -> bool:
    """Whether options ask for something else than the text of those that an image was done with.

    What nobody wrote does not count: a version with other defaults redoes nothing.
    """
    if text is None:
        return True
    before, now = json.loads(text), json.loads(ledger_text(options))
    names = set(options.written)
    if "policy" in names:
        names |= set(FIRST_NUMBERS.values())
    return any(before.get(name) != now[name] for name in names)


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
