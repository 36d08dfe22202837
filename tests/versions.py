"""A later version of tierscale, as far as what it does by itself is concerned."""

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
    defaults = Options.__init__.__defaults__ or ()
    patch.setattr(
        Options.__init__, "__defaults__", tuple(changed.get(id(one), one) for one in defaults)
    )
    later = Options()
    if (later.policy, later.tile, later.tier_labels) != (POLICY, 96, TIERS):
        raise AssertionError(f"the defaults could not be changed: {later}")
