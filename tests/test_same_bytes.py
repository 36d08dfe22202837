"""The same plan gives the same bytes, or BYTES_VERSION says that it does not."""

import json

import pytest

from tests.golden import same_bytes
from tests.golden.runs import environment
from tests.golden.same_bytes import CASES, QUICK, check, entry_of, recorded, with_bytes
from tierscale.pipeline.plan import plan as plans
from tierscale.pipeline.run.workers import shard_tasks

pytestmark = pytest.mark.usefixtures("one_thread")

RAISE = (
    "the same plan gives other bytes: raise BYTES_VERSION in pipeline/plan/plan.py and record them"
    " with python -m tests.golden.same_bytes --record"
)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in CASES]
)
def test_a_recorded_plan_gives_the_recorded_bytes(name, tmp_path):
    told = check(name, tmp_path)
    assert not told, f"{RAISE} ({'; '.join(told)})"


def test_a_change_of_bytes_without_another_number_is_noticed(tmp_path, monkeypatch):
    _, exact = entry_of(recorded(), plans.BYTES_VERSION)
    real, flip = shard_tasks.finish_shard, 1 if exact else 64

    def changed(*given):
        pixels = real(*given)
        pixels[..., :8, :8] ^= flip
        return pixels

    monkeypatch.setattr(shard_tasks, "finish_shard", changed)
    assert check("rgb", tmp_path)


def test_every_number_has_its_record_and_every_case_a_plan():
    record = recorded()
    assert record["plans"].keys() == CASES.keys()
    assert [int(number) for number in record["bytes"]] == list(range(1, plans.BYTES_VERSION + 1)), (
        RAISE
    )
    for entries in record["bytes"].values():
        assert all(entry["cases"].keys() == CASES.keys() for entry in entries)


def test_recorded_bytes_are_never_recorded_again():
    here, there = {"torch": "1"}, {"torch": "2"}
    record = with_bytes({"plans": {}, "bytes": {}}, 1, here, {"a": 1})
    with pytest.raises(ValueError, match="raise BYTES_VERSION"):
        with_bytes(record, 1, here, {"a": 2})
    with pytest.raises(ValueError, match="only when bytes change"):
        with_bytes(record, 2, here, {"a": 1})
    record = with_bytes(with_bytes(record, 1, there, {"a": 3}), 2, here, {"a": 2})
    assert [len(entries) for entries in record["bytes"].values()] == [2, 1]
    assert record["bytes"]["1"][0]["cases"] == {"a": 1}


def test_the_command_refuses_to_record_again(tmp_path, monkeypatch, capsys):
    bytes_here = {"1": [{"environment": environment(), "cases": {}}]}
    (tmp_path / "record.json").write_text(json.dumps({"plans": {}, "bytes": bytes_here}))
    monkeypatch.setattr(same_bytes, "RECORD", tmp_path / "record.json")
    monkeypatch.setattr(same_bytes, "CASES", {})
    monkeypatch.setattr(plans, "BYTES_VERSION", 1)
    assert same_bytes.main(["--record"]) == 2
    assert "raise BYTES_VERSION" in capsys.readouterr().err
    assert json.loads((tmp_path / "record.json").read_text())["bytes"] == bytes_here
