"""How AdaDSR is trained."""

from typing import Any

import pytest
import torch

from tests.models.train.pictures import SMALL
from tierscale.models.contract.checkpoints import ModelSpec
from tierscale.models.train.methods import adadsr
from tierscale.models.train.recipes import build

pytestmark = pytest.mark.usefixtures("one_thread")


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
