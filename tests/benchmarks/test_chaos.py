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
