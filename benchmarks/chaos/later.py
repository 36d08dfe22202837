"""A later version of tierscale in this process, as far as what it does by itself is concerned."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tierscale.models import registry, weights
from tierscale.models.contract.checkpoints import Checkpoint, read_checkpoint, write_checkpoint
from tierscale.pipeline import version
from tierscale.pipeline.plan import options, plan
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.plan.policies import Budget

# Called with an object, the name of an attribute, and what that is from now on.
Change = Callable[[Any, str, Any], None]

RETRAINED = ("fsrcnn-x4", "edsr-x4")
POLICY, TIERS, TILE = Budget(0.9), ("bicubic", "edsr-x4"), 96


def change_defaults(change: Change = setattr) -> None:
    """From now on the package has another version, default policy, and default tiers and tile."""
    change(version, "version", lambda name: "9.9.9")
    change(options, "default_tiers", lambda scale, family="clean": TIERS)
    usual = Options()
    changed = {id(usual.policy): POLICY, id(usual.tile): TILE}
    init = inspect.unwrap(Options.__init__)
    defaults = tuple(changed.get(id(one), one) for one in init.__defaults__ or ())
    change(init, "__defaults__", defaults)
    later = Options()
    if (later.policy, later.tile, later.tier_labels) != (POLICY, TILE, TIERS):
        raise AssertionError(f"the defaults could not be changed: {later}")


def newer_weights(folder: Path, change: Change = setattr) -> None:
    """From now on the zoo is that of `folder`, in which some networks have newer weights too."""
    folder.mkdir()
    for path in weights.ZOO.iterdir():
        (folder / path.name).symlink_to(path)
    change(weights, "ZOO", folder)
    for name in RETRAINED:
        newer = folder / "new.safetensors"
        write_checkpoint(newer, other(read_checkpoint(registry.locate(name))))
        weights.ship(name, newer)
        newer.unlink()


def other(checkpoint: Checkpoint) -> Checkpoint:
    """A checkpoint of the same network whose results are others."""
    tensors = {
        name: tensor * 1.05 if tensor.is_floating_point() else tensor
        for name, tensor in checkpoint.tensors.items()
    }
    return Checkpoint(checkpoint.spec, tensors)


def become_later(folder: Path) -> None:
    """All of it, and another number of the bytes that it writes. folder: for its zoo."""
    change_defaults()
    newer_weights(folder)
    plan.BYTES_VERSION += 1
