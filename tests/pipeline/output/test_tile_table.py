"""The tile table holds every tile once, with its tier and what it cost."""

import numpy as np
import pytest

from tierscale.pipeline.errors import Refused
from tierscale.pipeline.output import tile_table
from tierscale.pipeline.output.receipts import Folder


def test_the_table_of_a_finished_output(output):
    folder = Folder(str(output))
    plan = folder.plan()
    table = tile_table.read(folder.path)
    assert table.schema.equals(tile_table.SCHEMA)
    rows = table.to_pylist()
    assert len(rows) == plan.routes.size == 35
    assert sum(row["height"] * row["width"] for row in rows) == 150 * 200
    assert [(row["row"], row["column"]) for row in rows] == list(np.ndindex(plan.grid.tiles))
    labels = [tier.label for tier in plan.tiers]
    assert [labels.index(row["tier"]) for row in rows] == plan.routes.ravel().tolist()
    assert all(row["cost"] > 0 and row["milliseconds"] >= 0 for row in rows)
    receipts = list(folder.receipts(plan.digest, 0))
    assert sum(receipt.cost for receipt in receipts) == pytest.approx(
        sum(row["cost"] for row in rows)
    )
    assert sum(sum(receipt.tiles.values()) for receipt in receipts) == 35


def test_scores_come_back_to_the_last_bit(output, tmp_path):
    plan = Folder(str(output)).plan()
    scores = np.random.default_rng(0).random((35, 2), np.float32)
    (tmp_path / tile_table.NAME).write_bytes(tile_table.to_parquet(plan, scores))
    np.testing.assert_array_equal(tile_table.read_scores(tmp_path, 2), scores)
    table = tile_table.read(tmp_path)
    assert not table["cost"].to_numpy().any()
    np.testing.assert_array_equal(
        table["difficulty"].to_numpy(), np.maximum(scores[:, 0] - scores[:, 1], 0)
    )


def test_a_missing_table_is_refused(tmp_path):
    with pytest.raises(Refused, match=r"no tile table .*tiles\.parquet"):
        tile_table.read(tmp_path)
