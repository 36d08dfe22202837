"""The report of a night: families, notes and losses of images stand in page and table."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tierscale.pipeline.dataset.night.ledger import Ledger
from tierscale.pipeline.dataset.night.listing import record_listing
from tierscale.pipeline.dataset.night.night_report import NightSummary, write_report
from tierscale.pipeline.dataset.results import ImageResult
from tierscale.pipeline.dataset.scan import ListedSource

NOTE = "grain of about 7 levels, JPEG about 55: photo networks <b>"
RESULT = ImageResult(
    *("p1", 3, 8, 8, {"bicubic": 1}, 5.0, 0.5, 1.0),
    family="photo",
    notes=(NOTE, "another note"),
    loss=(0.0312, 0.0456),
)
COUNTS = dict.fromkeys(
    ("new", "changed", "untouched", "gone", "done", "failed", "parked", "left", "unsettled"), 1
) | {"read_again": 0, "healed": 0}


@pytest.mark.parametrize("result", [RESULT, ImageResult("p1", 3, 8, 8, {"bicubic": 1}, 5, 0.5, 1)])
def test_families_notes_and_losses_stand_in_page_and_table(result, tmp_path):
    with Ledger(str(tmp_path / "ledger.db")) as ledger:
        record_listing(ledger, [ListedSource("a", 10, 1)], pytest.fail)
        ledger.begin_night("n1")
        ledger.claim("n1", "{}", str)
        ledger.record_done("a", result, "s")
        summary = NightSummary("n1", COUNTS, 0, 60)
        files = write_report(tmp_path, summary, ledger.report_rows("n1"))
    (row,) = pq.read_table(files["table"]).to_pylist()
    page = Path(files["html"]).read_text()
    if result is RESULT:
        assert row["family"] == "photo" and row["notes"] == f"{NOTE}\nanother note"
        assert (row["loss_db"], row["loss_high"]) == (0.0312, 0.0456)
        assert "0.031 (0.046)" in page and "photo networks &lt;b&gt;<br>another note" in page
    else:
        assert row["family"] is row["loss_db"] is row["loss_high"] is None and row["notes"] == ""
        assert "(0." not in page and "None" not in page
