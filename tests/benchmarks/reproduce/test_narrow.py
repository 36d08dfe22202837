"""A narrower CARN from a trained one."""

import pytest
import torch

from benchmarks.reproduce.narrow import narrow
from tierscale.models.backbones.carn import Carn
from tierscale.models.contract.checkpoints import Checkpoint, ModelSpec

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(("features", "groups"), [(6, 3), (4, 2)])
def test_a_narrower_network_keeps_the_channels_that_carry(features: int, groups: int) -> None:
    """Of a network where only some channels carry anything, exactly those stay.

    And what it makes is the same.
    """
    torch.manual_seed(0)
    wide = Carn(scale=2, features=9, groups=3)
    alive = torch.tensor([1, 2, 4, 5, 6, 8] if groups == 3 else [0, 2, 6, 7])
    dead = torch.ones(9).scatter_(0, alive, 0).bool()
    tensors = {name: tensor.clone() for name, tensor in wide.state_dict().items()}
    for name, tensor in tensors.items():
        if not name.startswith("exit"):
            tensor[dead.repeat_interleave(len(tensor) // 9)] = 0
    wide.load_state_dict(tensors)
    photos = [torch.rand(3, 12, 12) - 0.5]
    made = narrow(
        Checkpoint(ModelSpec("carn", 2, {"features": 9, "groups": 3}), tensors),
        features,
        photos,
        groups,
    )
    slim = Carn(scale=2, **made.spec.arguments)
    slim.load_state_dict(made.tensors)
    torch.testing.assert_close(slim(photos[0][None]), wide(photos[0][None]), atol=1e-6, rtol=1e-5)


def test_what_cannot_be_narrowed_is_refused() -> None:
    checkpoint = Checkpoint(ModelSpec("carn", 2, {"features": 9, "groups": 3}), {})
    for features, groups in ((9, 3), (5, 3), (6, 1), (8, 4)):
        with pytest.raises(ValueError, match="cannot be narrowed"):
            narrow(checkpoint, features, [], groups)
