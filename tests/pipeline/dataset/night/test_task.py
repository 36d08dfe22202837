"""What an archive's task is, and how the ledger keeps its options from version to version."""

import json
from dataclasses import dataclass
from typing import ClassVar

from tierscale.pipeline.dataset.night.task import ArchiveTask, asks_otherwise, ledger_text
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.plan.policies import KINDS, Adaptive, Budget, MaxLoss


def test_roots_are_normalized(tmp_path):
    task = ArchiveTask(f"{tmp_path}/in/", f"file://{tmp_path}/out")
    assert (task.archive, task.output) == (str(tmp_path / "in"), str(tmp_path / "out"))
    assert task.output_paths().of(f"{task.archive}/a/b.png") == f"{task.output}/a/b.png.zarr"


def test_another_number_of_a_policy_is_another_text_in_the_ledger(monkeypatch):
    @dataclass(frozen=True)
    class Later:
        """A policy that version 0.1 did not know."""

        name: ClassVar[str] = "later"
        number: float

    monkeypatch.setitem(KINDS, Later.name, Later)
    policies = (Adaptive(), Budget(0.3), Budget(0.4), MaxLoss(0.3), Later(0.3), Later(0.4))
    texts = [ledger_text(Options(policy=policy)) for policy in policies]
    assert len(set(texts)) == len(policies)


def test_the_texts_of_version_0_1_stay():
    plain = json.loads(ledger_text(Options(policy=Adaptive())))
    numbers = {name: plain[name] for name in ("budget", "threshold", "lose", "deadline")}
    assert numbers == dict.fromkeys(numbers) and plain["policy"] == "adaptive"
    lossy = json.loads(ledger_text(Options(policy=MaxLoss(0.02))))
    assert lossy == {**plain, "policy": "quality", "lose": 0.02}


def test_only_what_was_written_can_differ():
    before = ledger_text(Options(tile=64, policy=Budget(0.3)))
    assert not asks_otherwise(before, Options()), "other defaults redo nothing"
    assert not asks_otherwise(before, Options(tile=64)) and asks_otherwise(before, Options(tile=32))
    assert not asks_otherwise(before, Options(policy=Budget(0.3)))
    assert asks_otherwise(before, Options(policy=Budget(0.4))) and asks_otherwise(None, Options())
    assert asks_otherwise(before, Options(family="photo"))
    photo = ledger_text(Options(family="photo"))
    assert not asks_otherwise(photo, Options(family="photo")) and not asks_otherwise(
        before, Options(family="auto")
    )
