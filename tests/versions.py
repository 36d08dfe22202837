"""A later version of tierscale, for as long as a test lasts."""

from pathlib import Path

import pytest

from benchmarks.chaos import later

POLICY, TIERS = later.POLICY, later.TIERS


def become_later(patch: pytest.MonkeyPatch) -> None:
    """From now on the package has another version, default policy, and default tiers and tile."""
    later.change_defaults(patch.setattr)


def newer_weights(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """From now on names of networks stand for newer weights, and the older ones are there too."""
    later.newer_weights(folder, patch.setattr)
