"""Stand-in networks for tests of the pipeline."""

import pytest

from tests.fakes import Smear
from tierscale.models import registry
from tierscale.models.runtime.bicubic import Bicubic
from tierscale.pipeline.run.scoring import scorer


@pytest.fixture
def smear(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Tiers "bicubic" and "smear"; the fixture's value may be replaced by another Smear."""
    known: dict[str, object] = {"bicubic": Bicubic(), "smear": Smear()}
    monkeypatch.setattr(
        registry,
        "load_weights",
        lambda name, device="cpu", weights=None, bfloat16=False: registry.Loaded(known[name], name),
    )
    monkeypatch.setattr(registry, "holds", lambda name, weights: name in known)
    monkeypatch.setattr(scorer, "light_network", lambda tiers, scale: None)
    return known
