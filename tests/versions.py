"""A later version of tierscale, as far as what it does by itself is concerned."""

import inspect

import pytest

from tierscale.pipeline import version
from tierscale.pipeline.plan import options
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.plan.policies import Budget

POLICY, TIERS = Budget(0.9), ("bicubic", "edsr-x4")


def become_later(patch: pytest.MonkeyPatch) -> None:
    """From now on the package has another version, default policy, and default tiers and tile."""
    patch.setattr(version, "version", lambda name: "9.9.9")
    patch.setattr(options, "default_tiers", lambda scale: TIERS)
    usual = Options()
    changed = {id(usual.policy): POLICY, id(usual.tile): 96}
    init = inspect.unwrap(Options.__init__)
    defaults = tuple(changed.get(id(one), one) for one in init.__defaults__ or ())
    patch.setattr(init, "__defaults__", defaults)
    later = Options()
    if (later.policy, later.tile, later.tier_labels) != (POLICY, 96, TIERS):
        raise AssertionError(f"the defaults could not be changed: {later}")
