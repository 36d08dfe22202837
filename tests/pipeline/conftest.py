"""Stand-in networks for tests of the pipeline."""

import pytest

from tests.fakes import Smear
from tierscale.models import registry
from tierscale.models.runtime.bicubic import Bicubic


@pytest.fixture
def smear(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Tiers "bicubic" and "smear"; the fixture's value may be replaced by another Smear."""
    known: dict[str, object] = {"bicubic": Bicubic(), "smear": Smear()}
    monkeypatch.setattr(registry, "load", lambda name, device="cpu": known[name])
    monkeypatch.setattr(registry, "digest", lambda name: name)
    monkeypatch.setattr(registry, "load_scout", lambda tiers, scale: None)
    return known
