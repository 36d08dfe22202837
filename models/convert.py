"""Published checkpoints become ours: which function reads which network's names, and how a file of the official code is opened."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from models import carn, fsrcnn, srresnet
from models.weights import Checkpoint

Reader = Callable[[Mapping[str, Tensor], Mapping[str, Any], tuple[float, float, float]], Checkpoint]

# What --method names -> what turns tensors under published names, constructor arguments and the mean into our checkpoint.
PUBLISHED: dict[str, Reader] = {
    "carn": carn.published,
    "fsrcnn": fsrcnn.published,
    "srresnet": srresnet.published,
}
