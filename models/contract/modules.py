"""What torch does to modules, with the types that its own signatures lose."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


def module_list(modules: Iterable[M]) -> Sequence[M]:
    """A ModuleList, as an attribute of a module its parameters; to a checker a sequence of M."""
    return nn.ModuleList(modules)  # type: ignore[return-value]


def channels_last(module: M) -> M:
    """The module itself, its weights laid out with channels last (NHWC), as CPUs compute them."""
    moved: M = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return moved
