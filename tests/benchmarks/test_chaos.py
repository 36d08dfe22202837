"""A short round of `make chaos`, and that its own checks can fail."""

import random

import pytest

from benchmarks.chaos import __main__ as chaos
from benchmarks.chaos import disturbances
from benchmarks.chaos.driver import Ended
from benchmarks.chaos.trial import Trial


def test_a_seed_deals_the_same_runs_and_every_kind_in_turn():
    assert chaos.deal(100, 7, None) == chaos.deal(100, 7, None) != chaos.deal(100, 8, None)
    assert (
        set(chaos.deal(len(disturbances.KINDS), 7, None)) == set(disturbances.KINDS)
        and len(chaos.deal(100, 7, None)) == 100
    )
    assert chaos.deal(3, 7, "clock") == ["clock"] * 3


@pytest.mark.parametrize("way", ["truncated", "zeroed", "flipped", "removed"])
def test_a_spoilt_shard_differs(tmp_path, way):
    file = tmp_path / "shard"
    file.write_bytes(bytes(range(256)) * 8)
    disturbances.spoil(file, way, random.Random(1))
    assert not file.exists() or file.read_bytes() != bytes(range(256)) * 8


@pytest.mark.parametrize("way", ["empty", "cut", "gone"])
def test_a_power_failure_takes_some_of_a_file(tmp_path, way):
    file = tmp_path / "shard"
    file.write_bytes(bytes(range(256)))
    disturbances.lose(file, way, random.Random(1))
    assert file.exists() == (way != "gone")
    assert way == "gone" or (
        file.stat().st_size < 256 and (way == "cut") == (file.stat().st_size > 0)
    )


def test_sound_shards_have_a_receipt_and_a_file_of_its_length(tmp_path):
    trial = Trial(None, random.Random(1), tmp_path / "a.png", tmp_path / "out.zarr")
    for name, content, receipt in (
        ("0.0", b"123", '{"bytes": 3}'),
        ("0.1", b"", '{"bytes": 3}'),
        ("1.0", b"123", '{"byt'),
        ("1.1", None, '{"bytes": 3}'),
    ):
        y, x = name.split(".")
        shard, file = trial.output / f"0/c/0/{y}/{x}", trial.folder / f"receipts/0/{name}.json"
        for path in (shard, file):
            path.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(receipt)
        if content is not None:
            shard.write_bytes(content)
    assert trial.sound() == 1


def test_untruthful_ends_are_noticed(tmp_path):
    trial = Trial(None, random.Random(1), tmp_path / "a.png", tmp_path / "out.zarr")
    trial.expect(Ended(1, "", f"tierscale: {tmp_path}/out.zarr is damaged; heal it\n"), 1)
    for wrong in (
        Ended(0, "", ""),
        Ended(1, "", ""),
        Ended(1, "", "tierscale: it failed\n"),
        Ended(1, "", "Traceback\nKeyError: 'out.zarr'"),
    ):
        with pytest.raises(AssertionError):
            trial.expect(wrong, 1)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_round_of_chaos_loses_nothing(capsys, monkeypatch):
    monkeypatch.setattr(chaos, "record", lambda *figures: None)
    monkeypatch.setattr(chaos.signal, "signal", lambda *arguments: None)
    code = chaos.main(["--runs", "5", "--seed", "11"])
    assert code == 0, capsys.readouterr().out
