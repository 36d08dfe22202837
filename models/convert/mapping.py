"""What the converters have in common: renaming weights, value ranges, means, numbered layers."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

Mean = tuple[float, float, float]


def rename_weights(
    network: nn.Module,
    tensors: Mapping[str, Tensor],
    own_name: Callable[[str], str | None],
    origin: str,
) -> dict[str, Tensor]:
    """Weights under upstream names as the state dict of `network`, which they fit.

    own_name: our name for an upstream one; None for what inference does not need. origin: names the
    checkpoint in errors. ValueError naming the upstream key and the shapes that do not fit.
    """
    expected = network.state_dict()
    renamed: dict[str, Tensor] = {}
    for theirs, tensor in tensors.items():
        try:
            ours = own_name(theirs)
        except (IndexError, KeyError, ValueError):  # no name that the upstream code gives
            ours = theirs
        if ours is None:
            continue
        if ours not in expected:
            raise ValueError(
                f"{origin} holds {theirs!r} of shape {tuple(tensor.shape)}, which the network it"
                " should become does not have"
            )
        if tensor.shape != expected[ours].shape:
            raise ValueError(
                f"{origin} holds {theirs!r} of shape {tuple(tensor.shape)} where the network has"
                f" {tuple(expected[ours].shape)}; its configuration and its weights do not belong"
                " together"
            )
        renamed[ours] = tensor
    for name, tensor in expected.items():
        if name.endswith("num_batches_tracked"):
            renamed.setdefault(name, tensor)
        if name not in renamed:
            raise ValueError(
                f"{origin} lacks what becomes {name!r} of shape {tuple(tensor.shape)}; it belongs"
                " to another network"
            )
    return renamed


def constructor_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The constructor arguments in an upstream configuration, {"name", "args"} or flat."""
    return {**config, **config.get("args", {})}


@contextmanager
def reading_configuration(network: str, needed: str) -> Iterator[None]:
    """Within, a KeyError of an upstream network's configuration is a ValueError for its user."""
    try:
        yield
    except KeyError as error:
        raise ValueError(
            f"the configuration of an upstream {network} lacks {error}; give {needed}"
        ) from error


def mean_of_shifts(tensors: Mapping[str, Tensor], subtract: str, add: str, top: float) -> Mean:
    """The mean of red, green and blue, 0..1, that two upstream layers hold.

    subtract, add: names of the layers that take it from values 0..`top` and give it back.
    ValueError naming the layer and its shape where it does anything else.
    """
    for layer, sign in ((subtract, -1), (add, 1)):
        weight, bias = tensors.get(f"{layer}.weight"), tensors.get(f"{layer}.bias")
        if (
            weight is None
            or bias is None
            or bias.shape != (3,)
            or weight.shape not in ((3, 3, 1, 1), (3, 1, 1, 1))
        ):
            shape = None if weight is None else tuple(weight.shape)
            raise ValueError(
                f"'{layer}.weight' of shape {shape} is not a layer that shifts three colours; it"
                " belongs to another network"
            )
        colours = torch.eye(3) if weight.shape[1] == 3 else torch.ones(3, 1)
        if not torch.allclose(weight[:, :, 0, 0], colours) or not torch.allclose(
            sign * bias, tensors[f"{add}.bias"]
        ):
            raise ValueError(
                f"'{layer}.weight' of shape {tuple(weight.shape)} does more than shift by a mean,"
                " which is all that we convert"
            )
    red, green, blue = (tensors[f"{add}.bias"].double() / top).tolist()
    return red, green, blue


def to_unit_range(
    tensors: Mapping[str, Tensor], first: str, last: str, top: float
) -> dict[str, Tensor]:
    """Weights of a network on values 0..`top` as those on values 0..1.

    The layer `first` multiplies by `top`, the layer `last` divides by it.
    """
    scaled = {f"{first}.weight": tensors[f"{first}.weight"] * top}
    scaled |= {f"{last}.{part}": tensors[f"{last}.{part}"] / top for part in ("weight", "bias")}
    return {**tensors, **scaled}


def numbered_layers(names: Iterable[str], prefix: str) -> list[str]:
    """Layers whose weights begin with `prefix`, such as "tail.0.2", in numeric order."""
    layers = {name.rpartition(".")[0] for name in names if name.startswith(prefix)}
    return sorted(
        layers, key=lambda layer: [int(part) for part in layer.split(".") if part.isdigit()]
    )


def single_scale(scale: int | Iterable[int]) -> int:
    """The one scale of an upstream configuration, which holds it as a number or in a list.

    ValueError where there are more.
    """
    scales = [scale] if isinstance(scale, int) else list(scale)
    if len(scales) != 1:
        raise ValueError(
            f"a network of the scales {scales} cannot be converted; give one that was made for one"
            " scale"
        )
    return int(scales[0])


def some_names(tensors: Mapping[str, Tensor]) -> str:
    """The first names of a checkpoint, for errors."""
    return f"{', '.join(list(tensors)[:5])} and so on"
