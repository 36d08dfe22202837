"""Questions to a ledger by others than the nightly that holds it: nothing is written."""

import sqlite3
from contextlib import closing
from pathlib import Path

from tierscale.pipeline.dataset.night.ledger_schema import MARK
from tierscale.pipeline.errors import Damaged
from tierscale.pipeline.storage.sqlite import LOCK_SECONDS


def is_ledger(path: str) -> bool:
    """Whether a file is a ledger."""
    try:
        with _reading(path) as database:
            return bool(database.execute("PRAGMA application_id").fetchone()[0] == MARK)
    except sqlite3.DatabaseError:
        return False


def outputs_in(path: str) -> list[str]:
    """The outputs of what is done in a ledger, by name."""
    try:
        with _reading(path) as database:
            rows = database.execute(
                "SELECT output FROM sources WHERE state = 'done' ORDER BY output"
            ).fetchall()
    except sqlite3.DatabaseError as error:
        raise Damaged(f"{path} cannot be read ({error}); restore it from a copy") from error
    return [row[0] for row in rows]


def _reading(path: str) -> closing[sqlite3.Connection]:
    uri = f"{Path(path).absolute().as_uri()}?mode=ro"
    return closing(sqlite3.connect(uri, uri=True, timeout=LOCK_SECONDS))
