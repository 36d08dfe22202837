"""What a network of others costs, takes and does, found by running it on shapes or on zeros."""

import copy
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tierscale.models.runtime.counting import executed

# Architectures of spandrel, by name, whose result at a pixel depends on what lies around it alone,
# wherever a window begins: convolutions only. Those that work on pixels unshuffled say so by their
# size rules.
CONVOLUTIONAL = frozenset(
    (
        *("DnCNN", "DRUNet", "EDSR", "ESRGAN", "MMRealSR", "MoESR", "MoSR", "PLKSR", "RCAN"),
        *("RealCUGAN", "RealESRGAN Compact", "SeemoRe", "SPAN", "SwiftSRGAN"),
    )
)
# Others look at squares of a grid of their own: 4 to 64 pixels, which spandrel does not tell.
GRID = 64


def multiple_of(descriptor: Any) -> int:
    """Input pixels of whose multiples a window must begin, so that it is as in the whole image."""
    rules = int(descriptor.size_requirements.multiple_of)
    if descriptor.architecture.name in CONVOLUTIONAL:
        return rules
    return max(GRID, rules)


def count(descriptor: Any, size: tuple[int, int]) -> int:
    """Multiply-adds for one window of a size that its rules allow."""
    return _dry(descriptor, size, executed)


def peak_bytes(descriptor: Any, size: tuple[int, int]) -> int:
    """The most bytes of maps that live at the same time during one call, weights left out."""

    def measure(run: Callable[[], object]) -> int:
        with Living() as living, torch.no_grad():
            run()
        return living.most

    return _dry(descriptor, size, measure)


class Living(TorchDispatchMode):
    """Counts the bytes of all tensors that are made inside it and live at the same time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.known: dict[int, Any] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self._hold_all(result)
        return result

    def _hold_all(self, made: Any) -> None:
        """Hold what an operator has made: a tensor, or several in a list or tuple."""
        if isinstance(made, Tensor):
            self._hold(made.untyped_storage())
        elif isinstance(made, list | tuple):
            for one in made:
                self._hold_all(one)

    def _hold(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self.known:
            return
        self.now += size
        self.most = max(self.most, self.now)

        def forget() -> None:
            self.now -= size
            del self.known[key]

        self.known[key] = weakref.finalize(storage, forget)


def _dry(
    descriptor: Any, size: tuple[int, int], measure: Callable[[Callable[[], object]], int]
) -> int:
    """What `measure` finds of one call of a copy of the network.

    On shapes without values, or on zeros where the network looks at values.
    """
    shape, call = (1, int(descriptor.input_channels), *size), descriptor._call_fn
    try:
        hollow = copy.deepcopy(descriptor.model).to("meta")
        return measure(lambda: call(hollow, torch.zeros(shape, device="meta")))
    except (RuntimeError, NotImplementedError, TypeError):
        full = copy.deepcopy(descriptor.model)
        zeros = torch.zeros(shape, device=descriptor.device)
        return measure(lambda: call(full, zeros))


def changes_itself(descriptor: Any, size: tuple[int, int]) -> bool:
    """Whether a call of the network writes to what it consists of, as fused weights are.

    Threads then must not share it.
    """
    with torch.inference_mode(False), torch.no_grad():
        model = copy.deepcopy(descriptor.model)
        zeros = torch.zeros((1, int(descriptor.input_channels), *size), device=descriptor.device)
        descriptor._call_fn(model, zeros.clone())
        # Held, so that nothing new lies where they lay.
        tensors = [(where, value, value.detach()) for where, value in _tensors(model)]
        before = [(where, id(value), _place(value)) for where, value, _ in tensors]
        descriptor._call_fn(model, zeros.clone())
        return before != [(where, id(value), _place(value)) for where, value in _tensors(model)]


def _tensors(model: nn.Module) -> list[tuple[str, Tensor]]:
    """All tensors that a network holds: weights, buffers, and plain attributes."""
    return [
        (f"{name}.{key}", value)
        for name, module in model.named_modules()
        for key, value in {**vars(module), **module._parameters, **module._buffers}.items()
        if isinstance(value, Tensor)
    ]


def _place(tensor: Tensor) -> tuple[int, int]:
    """Where a tensor's values lie, and how often they were written to."""
    return tensor.data_ptr(), tensor._version
