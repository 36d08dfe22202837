"""The schema of a ledger: that of version 0.1 is carried over, a later one refused."""

import contextlib
import json
import sqlite3

import pytest

from tierscale.pipeline.dataset.night import ledger_schema
from tierscale.pipeline.dataset.night.ledger import Ledger
from tierscale.pipeline.dataset.night.listing import record_listing
from tierscale.pipeline.dataset.night.task import asks_otherwise, ledger_text
from tierscale.pipeline.dataset.scan import ListedSource
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.plan.policies import Budget, Full

# The tables as tierscale 0.1 made them, with user_version 0.
OLD_SCHEMA = """
CREATE TABLE sources (
  source TEXT PRIMARY KEY, output TEXT, state TEXT NOT NULL DEFAULT 'pending'
  CHECK (state IN ('pending', 'working', 'done', 'failed', 'parked')),
  priority REAL NOT NULL DEFAULT 0,
  bytes INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, etag TEXT, sha256 TEXT,
  seen INTEGER NOT NULL, noted REAL NOT NULL,
  plan TEXT, options TEXT, attempts INTEGER NOT NULL DEFAULT 0, counted TEXT, night TEXT,
  holder TEXT, height INTEGER, width INTEGER, tiles TEXT, cost REAL, cost_share REAL,
  seconds REAL, error TEXT);
CREATE INDEX waiting ON sources (attempts > 0, -priority, bytes, source) WHERE state = 'pending';
CREATE INDEX states ON sources (state, night);
CREATE TABLE lease (one INTEGER PRIMARY KEY CHECK (one = 1), host TEXT, pid INTEGER,
  token TEXT, started REAL, renewed REAL);
INSERT INTO sources (source, output, state, bytes, mtime_ns, seen, noted, plan, sha256)
  VALUES ('a', 'out/a.zarr', 'done', 10, 1, 7, 1.7e9, 'p0', 's'),
  ('b', NULL, 'pending', 10, 1, 7, 1.7e9, NULL, NULL);
INSERT INTO sources (source, state, bytes, mtime_ns, seen, noted, attempts, counted, night, error)
  VALUES ('c', 'failed', 10, 1, 7, 1.7e9, 1, 'n0', 'n0', 'a reason');
PRAGMA application_id = 1953064306"""


def version_of(path):
    with contextlib.closing(sqlite3.connect(path)) as database:
        return database.execute("PRAGMA user_version").fetchone()[0]


@pytest.fixture
def old(tmp_path):
    path = tmp_path / "old.db"
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.executescript(OLD_SCHEMA)
    return path


def test_a_ledger_of_version_0_1_is_carried_over(old):
    assert version_of(old) == 0
    with Ledger(str(old)) as ledger:
        listing = [ListedSource(name, 10, 1) for name in "abc"]
        assert record_listing(ledger, listing, pytest.fail).untouched == 3
        ledger.begin_night("n1")
        claimed = [ledger.claim("n1", "{}", str) for _ in range(3)]
        assert [entry and entry.source for entry in claimed] == ["b", "c", None]
        ledger.record_failure("c", "another reason")
        assert [row["attempts"] for row in ledger.report_rows("n1")] == [0, 2]
    assert version_of(old) == ledger_schema.VERSION > 0


def test_a_later_column_is_added_to_an_old_ledger(old, monkeypatch):
    """The next change of the tables: one entry in MIGRATIONS, and the version after it."""
    steps = (*ledger_schema.MIGRATIONS, ("ALTER TABLE sources ADD COLUMN later TEXT",))
    monkeypatch.setattr(ledger_schema, "MIGRATIONS", steps)
    monkeypatch.setattr(ledger_schema, "VERSION", len(steps))
    for _ in range(2):
        with Ledger(str(old)) as ledger:
            families = ledger.do("SELECT source, later FROM sources").fetchall()
            assert [tuple(row) for row in families] == [("a", None), ("b", None), ("c", None)]
    assert version_of(old) == len(steps)


def test_a_ledger_of_a_later_version_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "l.db"
    Ledger(str(path)).close()
    assert version_of(path) == ledger_schema.VERSION, "a new one has the version at once"
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 99")
        database.execute("ALTER TABLE sources RENAME COLUMN seen TO shown")
    with pytest.raises(Refused, match=r"l\.db was written by a later version .* install that"):
        Ledger(str(path))
    assert version_of(path) == 99


@pytest.mark.parametrize(
    ("written", "otherwise"),
    [
        ({}, False),
        ({"tile": 32, "policy": Budget(0.25)}, False),
        ({"tile": 128}, True),
        ({"policy": Budget(0.5)}, True),
        ({"policy": Full()}, True),
        ({"tiers": ("bicubic",)}, True),
        ({"nodata": 0.0}, True),
    ],
)
def test_only_what_is_written_asks_for_something_else(written, otherwise):
    """The text may be of a version with other defaults, and lack what a later one added."""
    done = {**json.loads(ledger_text(Options(tile=32, policy=Budget(0.25)))), "blend": 9}
    assert asks_otherwise(json.dumps(done), Options(**written)) == otherwise
    del done["nodata"]
    assert asks_otherwise(json.dumps(done), Options(**written)) == otherwise
    assert asks_otherwise(None, Options(**written))
