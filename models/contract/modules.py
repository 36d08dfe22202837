"""Torch functions on modules, with the types that their own signatures lose; and one thread."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


def module_list(modules: Iterable[M]) -> Sequence[M]:
    """A torch ModuleList of the modules, which a checker sees as a sequence of their class."""
    return nn.ModuleList(modules)  # type: ignore[return-value]


def dtype_of(module: nn.Module) -> torch.dtype:
    """The type of a module's weights."""
    return next(module.parameters()).dtype


def device_of(module: nn.Module) -> torch.device:
    """Where a module's weights lie."""
    return next(module.parameters()).device


def channels_last(module: M) -> M:
    """The module itself, its weights laid out with channels last (NHWC), the fastest on CPUs."""
    moved: M = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return moved


@contextmanager
def one_thread() -> Iterator[None]:
    """Small layers one after another: threads that wait for each other take 30 times as long.

    That is beside any other load (measured, two cores: composing a tail takes 7.6 s in place of
    0.27 s).
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
