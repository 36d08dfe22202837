"""Finished outputs are read again, some each night; what is damaged is made again."""

import threading
from types import SimpleNamespace

import pytest

from tierscale.pipeline.dataset.night import scrub as scrubbing
from tierscale.pipeline.dataset.night.scrub import Scrubbed, Window, scrub
from tierscale.pipeline.errors import Damaged, Interrupted, Refused
from tierscale.pipeline.run.verify import Verification


class Ledger:
    """Three outputs, and those that were found to be good."""

    def __init__(self, tmp_path):
        self.outputs = [(name, str(tmp_path / f"{name}.zarr")) for name in "abc"]
        for _, output in self.outputs:
            (tmp_path / output).mkdir()
        self.good = []

    def oldest_outputs(self, share):
        return self.outputs[: round(share * 3)]

    def record_read_back(self, source):
        self.good.append(source)


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path)


def answer(monkeypatch, **found):
    """What verify_output says of each output, or raises."""

    def verified(output, pool, look):
        assert look.heal
        result = found[output[-6]]
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(scrubbing, "verify_output", verified)


def run(ledger, share=1.0, window=None, progress=lambda *_: None):
    return scrub(ledger, SimpleNamespace(width=1), share, window or threading.Event(), progress)


def test_what_is_healed_is_told_and_what_is_not_is_a_problem(ledger, monkeypatch):
    healed, lost = Verification(4, ("one",), 1), Verification(4, ("two", "three"), 1)
    answer(monkeypatch, a=Verification(4), b=healed, c=lost)
    assert run(ledger) == Scrubbed(3, ("one", "two", "three"), 2, ("two", "three"))
    assert ledger.good == ["a", "b"], "what is not good is read again the next night"


@pytest.mark.parametrize("error", [Refused("has no plan"), Damaged("is another run's")])
def test_one_output_never_hides_another(ledger, monkeypatch, error):
    answer(monkeypatch, a=error, b=Verification(4), c=Verification(4, ("one",), 1))
    assert run(ledger) == Scrubbed(3, (str(error), "one"), 1, (str(error),))


def test_a_share_is_read(ledger, monkeypatch):
    answer(monkeypatch, a=Verification(4))
    steps = []
    assert run(ledger, 1 / 3, progress=lambda *step: steps.append(step)).outputs == 1
    assert steps == [("read again", 0, 1)]


def test_an_output_that_was_deleted_with_its_source_is_none_to_keep(ledger, monkeypatch, tmp_path):
    (tmp_path / "a.zarr").rmdir()
    answer(monkeypatch, b=Verification(4), c=Verification(4))
    assert run(ledger).problems == () and ledger.good == ["a", "b", "c"]


def test_the_window_closes_between_outputs_and_within_one(ledger, monkeypatch):
    over = [False, False, True]
    window = Window(threading.Event(), lambda: over.pop(0))
    answer(monkeypatch, a=Verification(4), b=Verification(4))
    assert run(ledger, window=window).outputs == 2
    answer(monkeypatch, a=Verification(4), b=Interrupted())
    assert run(ledger).outputs == 1


def test_a_window_is_over_by_the_clock_or_by_a_signal():
    stop, now = threading.Event(), [0.0]
    window = Window(stop, lambda: now[0] >= 10)
    assert not window.is_set()
    now[0] = 10.0
    assert window.is_set()
    now[0] = 0.0
    stop.set()
    assert window.is_set()
