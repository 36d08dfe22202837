"""The stages of adaptive methods."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from tests.models.train.pictures import SMALL, pictures
from tierscale.models.contract.checkpoints import ModelSpec
from tierscale.models.contract.upscaler import Placement, hr_length
from tierscale.models.runtime.resample import resample
from tierscale.models.train.methods import adadsr, anysr
from tierscale.models.train.recipes import STAGES, build, recipe
from tierscale.models.train.schedule import Schedule
from tierscale.models.train.trainer import (
    Trainer,
    TrainingPlan,
)

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_regressor_and_the_budget_and_the_choice_learn() -> None:
    """Every stage of every method moves what it says it moves, and nothing else."""
    for name in ("pcsr-carn-x2", "pcsr-fsrcnn-x2", "ape-edsr-x2", "adaedsr-x2"):
        spec, _ = recipe(name)
        known = STAGES[spec.network](spec)
        for stage, what in known.items():
            network = build(spec, 0)
            before = {key: value.clone() for key, value in network.state_dict().items()}
            schedule = Schedule(steps=2, batch=2, crop=6, warmup=1, rate=1e-3)
            plan = TrainingPlan(spec, schedule, what)
            trainer = Trainer(network, plan, torch.device("cpu"))
            assert trainer.advance(pictures(side=48), 0.0).isfinite()
            trainer.advance(pictures(side=48), 0.0)
            moved = {
                key
                for key, value in network.state_dict().items()
                if not torch.equal(value, before[key])
            }
            assert moved, (name, stage)
            assert all(key.startswith(what.trained) for key in moved if what.trained), (
                name,
                stage,
                moved,
            )


def test_anysr_learns_from_each_crop_at_its_own_place() -> None:
    spec = ModelSpec(
        "anysr",
        0,
        {
            "encoder_arguments": {"blocks": 1, "features": 8},
            "head": "liif",
            "head_arguments": {"hidden": [8]},
        },
    )
    network, lr = build(spec, 0), torch.rand(3, 3, 12, 12)
    for scale in (Fraction(2), Fraction(27, 10)):
        with torch.no_grad():
            together = anysr.enlarge(network, lr, spec, scale, 0.5)
            alone = [anysr.enlarge(network, one, spec, scale, 0.5) for one in lr.split(1)]
        torch.testing.assert_close(together, torch.cat(alone))
    with pytest.raises(ValueError, match="3 windows cannot lie at 1 places"):
        resample(lr, Placement.whole((12, 12), Fraction(27, 10)))


def test_anysr_learns_full_width_in_every_batch_and_the_least_in_half(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And a third of the batches has the largest scale."""
    asked: list[tuple[Fraction, float]] = []

    def enlarge(network: Any, lr: Any, spec: ModelSpec, scale: Fraction, width: float) -> Any:
        asked.append((scale, width))
        return torch.zeros(
            *lr.shape[:2], hr_length(lr.shape[2], scale), hr_length(lr.shape[3], scale)
        )

    monkeypatch.setattr(anysr, "enlarge", enlarge)
    spec, _ = recipe("anysr-edsr")
    torch.manual_seed(0)
    crops = torch.rand(400, 1, 3, 16, 16)
    for lr in crops:
        hr = lr.repeat_interleave(4, 2).repeat_interleave(4, 3)
        anysr.STAGES["whole"].loss(torch.nn.Identity(), lr, hr, spec)
    scales, widths = (list(column) for column in zip(*asked, strict=True))
    assert min(scales) == Fraction(11, 10)
    assert widths[::2] == [1.0] * len(crops)
    assert 0.4 < np.mean(np.equal(widths[1::2], 0.5)) < 0.6
    assert set(widths[1::2]) == set(anysr.WIDTHS)
    assert 0.28 < np.mean(np.equal(scales, 4)) < 0.42


def test_adadsr_shares_a_budget_in_a_batch_and_trains_the_full_network_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    budgets: list[Any] = []
    full: list[Any] = []
    at_budget, in_full = adadsr.enlarge, adadsr.enlarge_in_full
    monkeypatch.setattr(
        adadsr, "enlarge", lambda *rest: (budgets.append(rest[-1]), at_budget(*rest))[1]
    )
    monkeypatch.setattr(
        adadsr, "enlarge_in_full", lambda *rest: (full.append(rest[0]), in_full(*rest))[1]
    )
    spec = ModelSpec("adadsr", 2, {"blocks": 4, "features": 8}, (0.4, 0.4, 0.4), "bilinear")
    network, lr, hr = build(spec, 0), torch.rand(6, 3, 8, 8), torch.rand(6, 3, 16, 16)
    assert adadsr.STAGES["whole"].loss(network, lr, hr, spec).isfinite()
    assert len(full) == len(budgets) == 1
    assert len(set(budgets[0].tolist())) == 1
    assert 0.4 <= budgets[0][0] <= 4


def test_a_task_refuses_a_network_that_it_is_not_for() -> None:
    with pytest.raises(TypeError, match="trains Adadsr, not Identity"):
        adadsr.STAGES["whole"].loss(torch.nn.Identity(), torch.rand(1), torch.rand(1), SMALL)
