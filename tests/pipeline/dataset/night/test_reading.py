"""A ledger is known, and asked, without being held or changed."""

import sqlite3

import pytest

from tierscale.pipeline.dataset.night.ledger import Ledger
from tierscale.pipeline.dataset.night.listing import record_listing
from tierscale.pipeline.dataset.night.reading import is_ledger, outputs_in
from tierscale.pipeline.dataset.results import ImageResult
from tierscale.pipeline.dataset.scan import ListedSource
from tierscale.pipeline.errors import Damaged

RESULT = ImageResult("p1", 3, 8, 8, {"bicubic": 1}, 5.0, 0.5, 1.0)


def test_what_is_done_is_told_while_a_nightly_holds_the_ledger(tmp_path):
    path = str(tmp_path / "a?b#l.db")
    with Ledger(path) as ledger, ledger.lease(lambda: None):
        record_listing(ledger, [ListedSource(name, 1, 1) for name in "abc"], pytest.fail)
        for _ in range(2):
            entry = ledger.claim("n1", "{}", lambda source: f"/out/{source}.zarr")
            ledger.record_done(entry.source, RESULT, "s")
        assert is_ledger(path) and outputs_in(path) == ["/out/a.zarr", "/out/b.zarr"]
        assert ledger.do("SELECT token FROM lease").fetchone()[0] == ledger.owner["token"]


def test_other_files_are_no_ledgers(tmp_path):
    (tmp_path / "text").write_text("no database at all")
    (tmp_path / "empty").touch()
    sqlite3.connect(tmp_path / "other.db").executescript("CREATE TABLE sources (a)").close()
    for name in ("text", "empty", "other.db"):
        before = (tmp_path / name).read_bytes()
        assert not is_ledger(str(tmp_path / name)) and (tmp_path / name).read_bytes() == before
    with pytest.raises(Damaged, match="restore it from a copy"):
        outputs_in(str(tmp_path / "other.db"))
