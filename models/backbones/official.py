"""What published EDSR, RCAN and VDSR have in common: values 0..255, a mean that two layers hold,
and numbered enlarging layers.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor


def centre(
    tensors: Mapping[str, Tensor], subtract: str, add: str, top: float
) -> tuple[float, float, float]:
    """The mean of red, green and blue, 0..1, that the published layer `subtract` takes from values
    0..`top` and `add` gives back.

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
                f"'{layer}.weight' of shape {shape} is no layer that shifts three colours; it"
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


def unit(tensors: Mapping[str, Tensor], first: str, last: str, top: float) -> dict[str, Tensor]:
    """Weights of a network on values 0..`top` as those on values 0..1: the layer `first`
    multiplies, the layer `last` divides.
    """
    scaled = {f"{first}.weight": tensors[f"{first}.weight"] * top}
    scaled |= {f"{last}.{part}": tensors[f"{last}.{part}"] / top for part in ("weight", "bias")}
    return {**tensors, **scaled}


def numbered(names: Iterable[str], prefix: str) -> list[str]:
    """Layers whose weights begin with `prefix`, such as "tail.0.2", in the order of their
    numbers.
    """
    layers = {name.rpartition(".")[0] for name in names if name.startswith(prefix)}
    return sorted(
        layers, key=lambda layer: [int(part) for part in layer.split(".") if part.isdigit()]
    )


def one_scale(asked: int | Iterable[int]) -> int:
    """The one scale of a published configuration, which holds it as a number or in a list;
    ValueError where there are more.
    """
    scales = [asked] if isinstance(asked, int) else list(asked)
    if len(scales) != 1:
        raise ValueError(
            f"a network of the scales {scales} cannot be converted; give one that was made for one"
            " scale"
        )
    return int(scales[0])
