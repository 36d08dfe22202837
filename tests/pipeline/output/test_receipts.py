"""Receipts are read once, count once, and those that cannot be read count as missing."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest

from tierscale.pipeline.errors import Damaged, Refused
from tierscale.pipeline.output import receipts
from tierscale.pipeline.output.receipt import Receipt, pixels_sha256
from tierscale.pipeline.output.receipts import Folder, ReceiptSummary


def receipt(y, x, level=0, *, plan="ours", cost=0.1, retreats=()):
    return Receipt(
        plan=plan,
        level=level,
        y=y,
        x=x,
        shape=(3, 8, 8),
        pixels_sha256="00",
        bytes=192,
        tiles={"light": 1, "full": x} if level == 0 else {},
        cost=cost if level == 0 else 0.0,
        seconds={"enlarge": 0.5},
        device="cpu",
        batch=4,
        retreats=retreats,
        tile_costs=((y, x, cost, 2.0),) if level == 0 else (),
    )


@pytest.fixture
def folder(tmp_path):
    return Folder(str(tmp_path / "out.zarr"))


ALL = [receipt(0, 0), receipt(0, 1, retreats=("full",)), receipt(1, 0, cost=0.2), receipt(0, 0, 1)]


def test_receipts_come_back_as_they_were_written(folder):
    for one in ALL:
        folder.write(one)
    assert list(folder.receipts("ours")) == ALL
    assert list(folder.receipts("ours", 1)) == ALL[3:]
    assert folder.receipt("ours", (0, 1, 0)) == ALL[2]


def test_torn_receipts_and_those_of_other_plans_are_missing(folder):
    for one in (*ALL, receipt(1, 1, plan="another")):
        folder.write(one)
    (folder.path / "receipts/0/0.1.json").write_text('{"plan": "ou')
    (folder.path / "receipts/0/1.0.json").write_text('{"plan": "ours"}')
    assert list(folder.receipts("ours")) == [ALL[0], ALL[3]]
    with pytest.raises(Damaged, match=r"level 0 shard 0\.1 has no receipt any more"):
        folder.receipt("ours", (0, 0, 1))
    with pytest.raises(Damaged, match=r"level 0 shard 7\.7 has no receipt any more"):
        folder.receipt("ours", (0, 7, 7))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        bytes(300),
        b"\xff\xfe\x00{",
        b"[]",
        b"null",
        b'"text"',
        {"level": "0"},
        {"y": None},
        {"shape": [3, "8", 8]},
        {"tiles": []},
        {"tiles": {"light": "1"}},
        {"tile_costs": [[0, 1]]},
        {"tile_costs": [["0", 1, 0.1, 2.0]]},
        {"tile_costs": [[0, -1, 0.1, 2.0]]},
        {"tile_costs": 7},
        {"cost": "0.1"},
        {"cost": None},
    ],
)
def test_damaged_receipts_are_missing(folder, content):
    """Whatever a file holds, the shard is made again, and nothing breaks."""
    for one in ALL:
        folder.write(one)
    file = folder.path / "receipts/0/0.1.json"
    if isinstance(content, dict):
        content = json.dumps({**json.loads(file.read_text()), **content}).encode()
    file.write_bytes(content)
    assert list(folder.receipts("ours")) == [ALL[0], ALL[2], ALL[3]]
    with pytest.raises(Damaged, match="has no receipt any more"):
        folder.receipt("ours", (0, 0, 1))


def test_files_with_other_names_are_no_receipts(folder):
    for one in ALL:
        folder.write(one)
    for name in ("0/0.0 (conflicted copy).json", "0/readme.json", "x/0.0.json"):
        (folder.path / "receipts" / name).parent.mkdir(exist_ok=True)
        (folder.path / "receipts" / name).write_text("{}")
    assert folder.receipt_keys() == {one.key for one in ALL}


def test_receipts_of_version_0_1_know_no_length_and_new_names_do_no_harm(folder):
    for one in ALL[:2]:
        folder.write(one)
    files = [folder.path / f"receipts/0/0.{x}.json" for x in (0, 1)]
    old, later = (json.loads(file.read_text()) for file in files)
    assert old.pop("format") == 2 and old["bytes"] == 192
    files[0].write_text(json.dumps(old))
    files[1].write_text(json.dumps({**later, "format": 7, "colour of the sky": "blue"}))
    assert list(folder.receipts("ours")) == [replace(ALL[0], bytes=None), ALL[1]]


def test_receipts_that_were_never_written_are_removed_in_peace(folder):
    folder.remove([(0, 0, 1)])
    assert folder.receipt_keys() == set()


def test_receipts_that_are_removed_are_missing(folder):
    for one in ALL:
        folder.write(one)
    folder.remove([(0, 0, 1), (0, 7, 7)])
    assert list(folder.receipts("ours")) == [ALL[0], ALL[2], ALL[3]]


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_a_summary_is_the_same_in_any_order_and_counts_a_shard_once(order):
    summary = ReceiptSummary((2, 2))
    for index in (*order, order[0]):
        summary.add(ALL[index])
    assert len(summary) == 4 and (0, 0, 1) in summary and (0, 1, 1) not in summary
    assert summary.keys == {one.key for one in ALL}
    assert dict(summary.tiles) == {"light": 3, "full": 1} and summary.cost == 0.4
    assert summary.retreats == {"full"} and summary.bytes_of((0, 1, 0)) == 192
    np.testing.assert_array_equal(summary.tile_costs[0], [[0.1, 0.1], [0.2, 0]])
    np.testing.assert_array_equal(summary.tile_costs[1], [[2, 2], [2, 0]])


def test_all_that_a_run_needs_of_its_receipts_is_one_pass(output, monkeypatch):
    parsed = []
    parse = receipts.parse
    monkeypatch.setattr(receipts, "parse", lambda text, plan: parsed.append(1) or parse(text, plan))
    folder = Folder(str(output))
    plan = folder.plan()
    summary = folder.summary(plan)
    written = list((folder.path / "receipts").glob("*/*.json"))
    assert len(parsed) == len(written) == len(summary) == 2
    assert sum(summary.tiles.values()) == plan.routes.size
    assert summary.tile_costs[0].sum() == pytest.approx(summary.cost) and summary.cost > 0
    assert len(parsed) == 2, "nothing is read again"


def test_a_folder_without_a_plan_is_refused(folder, output, tmp_path):
    assert not folder.exists() and Folder(str(output)).exists()
    with pytest.raises(Refused, match=r"there is no .*out\.zarr; name an output"):
        folder.plan()
    plain = json.loads((Folder(str(output)).path / "plan.json").read_text())
    folder.path.mkdir()
    (folder.path / "plan.json").write_text(json.dumps({**plain, "blend": 7}))
    with pytest.raises(Refused, match=r"was changed.*--overwrite"):
        folder.plan()


def test_the_checksum_is_of_little_endian_pixels_in_c_order():
    pixels = np.arange(24, dtype=">u2").reshape(2, 3, 4)
    same = np.asfortranarray(pixels.astype("<u2"))
    assert pixels_sha256(pixels) == pixels_sha256(same)
    assert pixels_sha256(pixels) != pixels_sha256(pixels.transpose(0, 2, 1))
