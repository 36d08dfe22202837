"""The stages of adaptive methods."""

import pytest
import torch

from tests.models.train.pictures import pictures
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
