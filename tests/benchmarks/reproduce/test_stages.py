"""The papers' own ways of training."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.reproduce.stages import PAPER_STAGES
from benchmarks.reproduce.train import command
from tests.models.train.pictures import pictures
from tierscale.models.contract.checkpoints import ModelSpec
from tierscale.models.contract.upscaler import hr_length
from tierscale.models.train.methods import adadsr, anysr
from tierscale.models.train.recipes import build, recipe
from tierscale.models.train.schedule import Schedule
from tierscale.models.train.trainer import Trainer, TrainingPlan
from tierscale.pipeline.errors import Refused

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("name", ["ape-edsr-x2", "adaedsr-x2"])
def test_a_papers_stage_trains(name: str) -> None:
    spec, _ = recipe(name)
    (task,) = PAPER_STAGES[spec.network](spec).values()
    schedule = Schedule(steps=2, batch=2, crop=6, warmup=1, rate=1e-3)
    network = build(spec, 0)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    trainer = Trainer(network, TrainingPlan(spec, schedule, task), torch.device("cpu"))
    assert trainer.advance(pictures(side=48), 0.0).isfinite()
    assert any(not torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_classsrs_paper_moves_all_but_the_heaviest_branch() -> None:
    spec, _ = recipe("classsr-carn-x2")
    task = PAPER_STAGES["classsr"](spec)["paper"]
    assert task.trained == ("classifier.", "branches.0.", "branches.1.")
    network, lr, hr = build(spec, 0), torch.rand(2, 3, 32, 32), torch.rand(2, 3, 64, 64)
    assert task.loss(network, lr, hr, spec).isfinite()


def test_adadsrs_paper_gives_each_crop_a_budget_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    budgets: list[Any] = []
    original = adadsr.enlarge
    monkeypatch.setattr(
        adadsr, "enlarge", lambda *rest: (budgets.append(rest[-1]), original(*rest))[1]
    )
    spec = ModelSpec("adadsr", 2, {"blocks": 4, "features": 8}, (0.4, 0.4, 0.4), "bilinear")
    network, lr, hr = build(spec, 0), torch.rand(6, 3, 8, 8), torch.rand(6, 3, 16, 16)
    assert PAPER_STAGES["adadsr"](spec)["paper"].loss(network, lr, hr, spec).isfinite()
    assert len(budgets) == 1
    assert len(set(budgets[0].tolist())) == 6


def test_anysrs_paper_draws_scales_alike_and_one_width_for_each_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[tuple[Fraction, float]] = []

    def enlarge(network: Any, lr: Any, spec: ModelSpec, scale: Fraction, width: float) -> Any:
        calls.append((scale, width))
        return torch.zeros(
            *lr.shape[:2], hr_length(lr.shape[2], scale), hr_length(lr.shape[3], scale)
        )

    monkeypatch.setattr(anysr, "enlarge", enlarge)
    spec, _ = recipe("anysr-edsr")
    torch.manual_seed(0)
    crops = torch.rand(400, 1, 3, 16, 16)
    for lr in crops:
        hr = lr.repeat_interleave(4, 2).repeat_interleave(4, 3)
        PAPER_STAGES["anysr"](spec)["paper"].loss(torch.nn.Identity(), lr, hr, spec)
    scales, widths = (list(column) for column in zip(*calls, strict=True))
    assert len(calls) == len(crops)
    assert min(scales) == Fraction(11, 10)
    # Scales beyond 3.2 have no smaller width.
    assert 0.55 < np.mean(np.equal(widths, 1.0)) < 0.8
    assert np.mean(np.equal(scales, 4)) < 0.1


def test_the_command_refuses_what_has_no_paper_of_its_own() -> None:
    line = ["pcsr-carn-x4", "--hr", "none", "--steps", "1", "--stage", "paper"]
    with pytest.raises(Refused, match="no stage 'paper'"):
        command.main(line, prog_name="x", standalone_mode=False)
