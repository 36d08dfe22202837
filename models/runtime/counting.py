"""Multiply-adds, counted from the shapes that are really executed."""

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from tierscale.models.contract.modules import device_of, one_thread

M = TypeVar("M", bound=nn.Module)


class Multiplications(TorchDispatchMode):
    """Adds up the FLOPs of all operators with a formula of torch's while it is entered.

    torch's own FlopCounterMode imports torch's compiler, which takes two seconds of a start.
    """

    flops = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled here: without this, the compiler would be imported to say so."""
        return False

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        formula = flop_registry.get(func._overloadpacket)
        if formula is None:
            # What is made of others is counted by those.
            with self:
                parts = func.decompose(*args, **kwargs)
            return func(*args, **kwargs) if parts is NotImplemented else parts
        result = func(*args, **kwargs)
        self.flops += formula(*args, **kwargs, out_val=result)
        return result


def executed(run: Callable[[], object]) -> int:
    """Multiply-adds of the convolutions and matrix products that run() executes.

    Biases and activations are not counted.
    """
    with Multiplications() as counter, torch.inference_mode(False), torch.no_grad(), one_thread():
        run()
    return counter.flops // 2


def by_size(run: Callable[[int], object]) -> tuple[int, int]:
    """(multiply-adds for each pixel, and for the window) of run(side), on a square of that side.

    Every convolution gives one result for each pixel and none twice, or, behind a global pooling,
    one for the window: two small squares, really computed, tell all other sizes. (On torch's device
    "meta" nothing is computed, but its compiler is imported.)
    """
    small, large = (executed(partial(run, side)) for side in (8, 16))
    pixel = (large - small) // (16**2 - 8**2)
    return pixel, small - 8**2 * pixel


def for_counting(network: M) -> M:
    """A copy of a network that can be run on zeros, on the CPU in float32.

    One whose weights have no values (torch's device "meta") keeps to that.
    """
    copied = copy.deepcopy(network).float()
    return copied if device_of(copied).type == "meta" else copied.cpu()
